"""File formats of corpora: one module each, one line each in ``table``."""
