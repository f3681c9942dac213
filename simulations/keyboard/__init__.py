"""A keyboard to try trained models on: a page on this machine."""
