"""Federated algorithms, which define what a client and the server do with the model."""
