"""Benchmarks, generators and networks: used in a checkout, not installed."""
