"""A public encoder at a hospital: its files, onnxruntime behind the fence, and features kept encrypted by the cache."""
