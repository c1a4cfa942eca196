"""Accountants, where noise is placed, and counts that add up over hospitals."""
