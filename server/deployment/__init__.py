"""The coordinator's processes: SuperLink, executor, gateway and page, and what keeps studies running."""
