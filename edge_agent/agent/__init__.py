"""The agent: profiles the machine, offers what fits, runs leased attempts, signs what came out.

`daemon` owns sockets, clocks, threads and the worker process; `core`, `planner`, `presence` and `policy` are pure.
"""
