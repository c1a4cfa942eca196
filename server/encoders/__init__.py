"""Public encoders that a coordinator offers to the hospitals of a federation."""
