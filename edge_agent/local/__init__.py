"""A whole network on one machine, as separate processes on loopback: for `edge-agent up` and `edge-agent demo`."""
