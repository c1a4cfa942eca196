"""``python -m simulation.pretraining``: see ``weights``."""

from simulation.pretraining.weights import main

main()
