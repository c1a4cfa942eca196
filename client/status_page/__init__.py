"""The hospital's status page: what the site does, what patients have spent, what left the building, and the pause."""
