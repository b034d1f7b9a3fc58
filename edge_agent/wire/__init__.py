"""All that the agent and the coordinator must agree on; docs/protocol.md says it in words and in CDDL.

- `topics`: where on the broker something is said;
- `messages`: what can be said, one model for each kind of statement;
- `status`: the one that says how an agent fares; `kinds`: all of them;
- `envelope`: sealing statements and opening them, the only way in;
- `tensors`: the inputs and outputs that travel beside a statement;
- `cose`, `strict_cbor`, `keys`: the signed bytes underneath.
"""
