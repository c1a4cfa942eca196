"""Hostile and damaged DICOM files, one small function each; ``simulation.hostile.adversarial_dicom`` lists them all."""
