"""LitServe: its API server and one worker process; the bytes travel as base64 in JSON, its ordinary form."""

from __future__ import annotations

import base64
import os
from typing import Any

import litserve
from model import Model


class Api(litserve.LitAPI):
    """One model."""

    def setup(self, device: str) -> None:
        """Load it."""
        del device
        self.model = Model()

    def decode_request(self, request: dict[str, str]) -> bytes:
        """Take the bytes."""
        return base64.b64decode(request["data"])

    def predict(self, x: bytes) -> bytes:
        """Run."""
        return self.model(x)

    def encode_response(self, output: bytes) -> Any:  # noqa: ANN401 theirs
        """Give the bytes."""
        return {"data": base64.b64encode(output).decode()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(port=int(os.environ["PEER_PORT"]), host="127.0.0.1", generate_client_file=False, log_level="error")
