"""What patients have spent of their privacy, and the refusal to spend more."""
