"""The final model at a hospital: received, scored on its own held-out patients, used on new scans."""
