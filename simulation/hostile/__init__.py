"""Hostile and damaged DICOM files, one small function each; ``simulation.adversarial_dicom`` lists them all."""
