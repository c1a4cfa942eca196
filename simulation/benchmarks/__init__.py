"""Side-by-side measurements; run one with python -m simulation.benchmarks.NAME."""
