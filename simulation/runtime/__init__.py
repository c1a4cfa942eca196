"""Where a simulated study runs: the loopback grid, Ray, faults, and a lying server."""
