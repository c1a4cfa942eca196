"""A public encoder at a hospital: its file on disk, and onnxruntime in a fenced process of its own."""
