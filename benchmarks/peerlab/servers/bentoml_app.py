"""BentoML: a service with one method that takes a file."""

from __future__ import annotations

from pathlib import Path

import bentoml
from model import Model


@bentoml.service(workers=1)
class Service:
    """One model."""

    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api
    def infer(self, data: Path) -> str:
        """Run; text, because a method gives no raw bytes."""
        return self.model(data.read_bytes()).hex()
