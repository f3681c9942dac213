"""Local training and evaluation of clients."""
