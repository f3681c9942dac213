"""Position encodings of Transformers, one file each; ``table`` names them."""
