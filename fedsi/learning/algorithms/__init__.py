"""Federated algorithms: what a client and the server do with the model."""
