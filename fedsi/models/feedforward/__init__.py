"""Feed-forward parts of Transformers: one file each, named in ``table``."""
