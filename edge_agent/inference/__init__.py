"""Models are run here, in a process of their own, so that nothing they do can harm the agent.

    agent.daemon --> handle.Worker ==frames over a socket pair==> worker (a process) --> sessions --> onnxruntime

- `handle`: what the daemon uses. `process` is one life of a worker behind it, `outbox` its sending side.
- `events`: what the daemon hears, as values.
- `frames`: how a command or an event and its tensors travel: a small CBOR header, then raw bytes.
- `messages`: which headers there are.
- `worker`: the process; `service` is what it does: read commands, carry them out, answer each.
- `sessions`: an onnxruntime session with its inputs and outputs; tensors in, tensors out.
- `model_file`: looks through a model file before onnxruntime does.
- `canary`: a first run on known inputs that measures, and checks what comes out.
- `containment`: what the process gives up for good before it touches a model, by `landlock`, `seccomp` (with the tables
  in `syscalls`) and `limits`.

Only `sessions` imports onnxruntime and numpy; of the modules here, the daemon's side imports none that does.
"""
