"""The site folder: where things are, settings, set-up, joining a federation, and the audit log."""
