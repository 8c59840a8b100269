"""What Kern itself costs, beside plain httpx and beside other frameworks: `python -m benchmarks`."""
