"""Count what a graph costs: read it, follow its shapes, rewrite it as onnxruntime does, then add up.

`graph` is the picture that all others work on, `shapes` fills it in, `fusion` and `quantized` do the rewriting,
`memory` and `work` count. Imports onnx and numpy: for who publishes or looks at a file, never for the daemon.
"""
