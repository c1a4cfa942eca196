"""The coordinator: it sees sums, never the update of one site."""
