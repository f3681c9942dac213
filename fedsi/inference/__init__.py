"""Using a trained model: the next word, whole texts, any sequence length, other programs."""
