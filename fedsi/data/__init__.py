"""Data preparation, from texts to batches: corpora, vocabulary, memory-mapped populations."""
