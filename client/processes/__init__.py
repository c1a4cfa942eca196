"""Child processes of a hospital, and the frames of bytes between them."""
