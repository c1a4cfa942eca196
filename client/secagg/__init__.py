"""The site's half of secure aggregation."""
