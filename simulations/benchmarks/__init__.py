"""Benchmarks of fedsi. Results are only as reliable as the machine is idle."""
