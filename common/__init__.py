"""What both sides must agree on: plan, messages, identities, secure-aggregation rules, networks, accounting."""
