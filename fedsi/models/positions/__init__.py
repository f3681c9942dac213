"""Position encodings of Transformers: one file each, named in ``table``."""
