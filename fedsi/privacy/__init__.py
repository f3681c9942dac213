"""Differential privacy of what the server releases: mechanisms, accounting and audits."""
