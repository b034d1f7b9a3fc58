"""The coordinator: takes clients' jobs, leases attempts to agents, verifies and countersigns what comes back.

The way of one job: `gateway` → `core` → `scheduling` → the broker → an agent → the broker → `verification` →
`leasing` → `store` → `gateway`. `daemon` owns sockets, clocks, threads and the database; the rules are pure.
"""
