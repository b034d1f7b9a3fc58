"""FastAPI with onnxruntime in its process: `/loop` runs in the event loop, `/pool` in the thread pool."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from model import Model

app = FastAPI()
model = Model()


async def _body(request: Request) -> bytes:
    return await request.body()


@app.post("/loop")
async def loop(request: Request) -> Response:
    """Run in the event loop."""
    return Response(model(await request.body()))


@app.post("/pool")
def pool(body: Annotated[bytes, Depends(_body)]) -> Response:
    """Run in a thread of the pool."""
    return Response(model(body))
