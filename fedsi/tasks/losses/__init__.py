"""Losses of scores with right labels, ``task.loss``."""
