"""Scaling with workers, scaling with cohort size, and start-up time."""
