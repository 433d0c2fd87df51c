"""What it costs: `python -m benchmarks [NAME…]`; README.md says how to read the figures."""
