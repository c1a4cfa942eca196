"""Public encoders as data: an ONNX file that is checked before anything runs it, and the card that describes it."""
