"""Secure aggregation: the rules both sides share, without a network, without Flower, without torch."""
