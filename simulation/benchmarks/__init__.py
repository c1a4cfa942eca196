"""Side-by-side measurements, one a module: ``python -m simulation.benchmarks.rounds`` and its neighbours."""
