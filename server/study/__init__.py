"""A study's folder, journal, history, progress and live status."""
