"""Measures the kernel against plain ipykernel: ``python -P -m benchmarks``."""
