"""Runs inside the hospital; nothing here trusts the server."""
