"""Who belongs to the federation: its folder, admission, kit, certificates and settings."""
