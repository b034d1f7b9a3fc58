"""Texts to vectors: which families do that, what a client of OpenAI's interface asks of them, and its answer. Pure.

Which families are embedders follows from what the catalogue says of them, see docs/adr/0014-embedders.md.
"""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edge_agent.errors import InputError
from edge_agent.models.catalogue import Family
from edge_agent.wire import strict_json
from edge_agent.wire.tensors import ARRAY_CODES, DataType, Tensor, TensorSpec, little_endian, numbers_of, pack_strings

MAX_TEXTS = 2048
"""In one request, as at OpenAI."""
TEXTS_PER_JOB = 16
"""A request with more is several jobs, so that several machines can share it and none needs memory for all of it."""

_ITEM_BYTES = 4
_CODE = ARRAY_CODES[DataType.FP32]


@dataclass(frozen=True, slots=True)
class Embedder:
    """How a family is asked for vectors: its input, its output, and how many numbers a vector has."""

    input: str
    output: str
    size: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for.

    Attributes:
        dimensions: so many numbers of each vector; None for all.
        form: how they are written.
    """

    model: str
    texts: tuple[str, ...]
    dimensions: int | None
    form: Literal["float", "base64"]


def embedder(family: Family) -> Embedder | None:
    """Return how a family makes vectors of texts, or None where it does not.

    One input of N texts, one output of N rows of a fixed number of FP32, and not measured as a chooser between
    classes, whose logits have the same shape.
    """
    if len(family.inputs) != 1 or len(family.outputs) != 1 or family.metric not in {None, "cosine"}:
        return None
    (given,), (made,) = family.inputs, family.outputs
    if given.datatype != "BYTES" or made.datatype != "FP32" or len(given.shape) != 1 or len(made.shape) != 2:
        return None
    count, size = made.shape
    if not isinstance(count, str) or given.shape[0] != count or not isinstance(size, int) or size < 1:
        return None
    return Embedder(given.name, made.name, size)


def wish_from(body: object) -> Wish:
    """Read a request.

    Raises:
        InputError: a member is missing or wrong; the message names it.
    """
    if not isinstance(body, dict):
        raise InputError("the request must be a JSON object")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise InputError("'model' must be the name of a family", hint="GET /v1/models lists those that make vectors.")
    form = body.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise InputError("'encoding_format' must be 'float' or 'base64'")
    dimensions = body.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
        raise InputError("'dimensions' must be a whole number of at least 1")
    return Wish(model, _texts(body.get("input")), dimensions, "base64" if form == "base64" else "float")


def batches(embed: Embedder, texts: Sequence[str]) -> Iterator[Tensor]:
    """Yield the inputs of the jobs that embed these texts, in their order.

    Raises:
        InputError: a text is not one in UTF-8.
    """
    for start in range(0, len(texts), TEXTS_PER_JOB):
        part = texts[start : start + TEXTS_PER_JOB]
        try:
            data = pack_strings([text.encode() for text in part])
        except UnicodeEncodeError:
            raise InputError("'input' holds half of a surrogate pair, which is no text") from None
        yield Tensor(TensorSpec(embed.input, DataType.BYTES, (len(part),)), data)


def check_dimensions(embed: Embedder, wish: Wish) -> None:
    """Refuse more numbers than a vector has.

    Raises:
        InputError: they are asked for.
    """
    if wish.dimensions is not None and wish.dimensions > embed.size:
        raise InputError(
            f"'dimensions' must be at most {embed.size}: a vector of {wish.model[:80]} has no more numbers"
        )


def rows(embed: Embedder, outputs: Sequence[Tensor], wish: Wish) -> Iterator[str]:
    """Yield each vector as the JSON text of an entry of the answer.

    Args:
        embed: whose.
        outputs: FP32 [n, embed.size], one for each job.
        wish: how many numbers of each, and in which form. Fewer than all are scaled to length 1 again.

    Raises:
        InputError: a number is NaN or infinite, which JSON cannot hold; base64 can.
    """
    number = 0
    for tensor in outputs:
        for start in range(0, len(tensor.data), _ITEM_BYTES * embed.size):
            row = _shortened(tensor.data[start : start + _ITEM_BYTES * embed.size], wish.dimensions)
            yield f'{{"object":"embedding","index":{number},"embedding":{_written(row, wish.form)}}}'
            number += 1


def _shortened(row: bytes, dimensions: int | None) -> bytes:
    if dimensions is None or _ITEM_BYTES * dimensions >= len(row):
        return row
    numbers = numbers_of(_CODE, row[: _ITEM_BYTES * dimensions])
    length = math.sqrt(sum(number * number for number in numbers))
    if not (length > 0.0 and math.isfinite(length)):
        return row[: _ITEM_BYTES * dimensions]
    return little_endian(array(_CODE, [number / length for number in numbers]))


def _written(row: bytes, form: Literal["float", "base64"]) -> str:
    if form == "base64":
        return f'"{base64.b64encode(row).decode()}"'
    numbers = numbers_of(_CODE, row).tolist()
    if not all(map(math.isfinite, numbers)):
        raise InputError("a vector holds NaN or infinity", hint="Ask for encoding_format base64.")
    return strict_json.written(numbers).decode()


def _texts(given: Any) -> tuple[str, ...]:  # noqa: ANN401 any JSON
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise InputError("'input' must be a text or a list of texts, not an empty one")
    if len(texts) > MAX_TEXTS:
        raise InputError(f"'input' has {len(texts)} entries; at most {MAX_TEXTS} are taken")
    for text in texts:
        if type(text) in {int, list}:
            raise InputError(
                "'input' holds token numbers, but the family takes texts: its tokenizer is part of the model",
                hint="Send the texts themselves. With LangChain: check_embedding_ctx_length=False.",
            )
        if not isinstance(text, str) or not text:
            raise InputError("'input' must hold texts only, and no empty one")
    return tuple(texts)
