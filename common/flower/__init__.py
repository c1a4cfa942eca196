"""Everything that knows Flower's own types: environment, messages, objects, the thin pointer."""
