"""The file formats in which corpora come: one module each, one line each in ``table``."""
