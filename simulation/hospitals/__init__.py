"""Simulated hospitals' scans: imported, drawn, and written as DICOM."""
