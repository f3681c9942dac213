"""Use of a trained model: next words, texts, other sequence lengths, export."""
