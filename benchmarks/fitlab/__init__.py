"""What `benchmarks/fit.py` is made of: the models, the machines, the oracle, the rivals and the picture."""
