"""The global model: state, optimiser, checkpoints, scores, and blocks on disk."""
