"""Public start weights from generated images: ``python -m simulation.pretraining``."""
