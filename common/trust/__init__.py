"""Keys, roster, enrolment, kit, signed documents and hash chains: who is who, and what was signed."""
