"""The agent's control plane as a contract: ``site_control.proto`` and what is generated from it."""
