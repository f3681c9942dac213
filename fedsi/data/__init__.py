"""From texts to batches: corpora, vocabulary, the memory-mapped population."""
