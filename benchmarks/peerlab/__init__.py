"""Parts of benchmarks/peers.py: workloads, load, our own network, and what people would use instead."""
