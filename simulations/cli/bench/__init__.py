"""``fedsi bench``: measure fedsi on this machine."""
