"""A simulator of the whole network: the real cores, and a broker, disks, clocks and processes that fail by a script."""
