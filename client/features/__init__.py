"""What a public encoder makes of the scans, kept encrypted beside the cache, so that it is computed once."""
