"""What `benchmarks/classes.py` is made of."""
