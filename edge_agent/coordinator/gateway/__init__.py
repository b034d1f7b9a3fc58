"""HTTP at the coordinator: the Open Inference Protocol v2, and the jobs behind it."""
