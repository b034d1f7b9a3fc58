"""What each peer needs to serve one onnxruntime session; runs in the peer's own environment, never in ours."""
