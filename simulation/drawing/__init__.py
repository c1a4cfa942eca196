"""Numpy drawings of anatomy, lesions and scanners: the parts of ``simulation.hospitals.phantoms``."""
