"""Differential privacy at aggregation: what is released, its mechanisms, accounting and audits."""
