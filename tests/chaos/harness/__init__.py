"""The real fault harness: real processes, real faults on a seeded timeline, and an oracle that counts.

`run.run` builds a network of a broker, a coordinator and agents (`cluster`), sends jobs that carry a sequence number
(`load`, `numbers`), breaks things on a timeline drawn from a seed (`faults`), mends them, waits until every job has
ended, and then compares what the clients got with the coordinator's database and with each agent's own log
(`evidence`, `oracle`). What breaks things: `namespaces` (partitions), `proxy` (a bad network), `disks`, `memory`,
`clocks`, signals.
"""
