"""A conformance kit: known answers about private aggregation, and checks of any framework."""
