"""The result of a study as files for others."""
