"""One file for each command of fedward-sim."""
