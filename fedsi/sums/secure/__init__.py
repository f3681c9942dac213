"""Secure aggregation: masks that hide every client's vector and cancel in the sum."""
