"""Experiments on public data: each prints a table and, with ``--json``, what a script can read."""
