"""Many hospitals on one machine: loopback grid, phantoms, attackers, benchmarks, report."""
