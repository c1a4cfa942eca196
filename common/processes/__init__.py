"""Supervision of processes, locks, freed memory and logs."""
