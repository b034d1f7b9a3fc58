"""What a parser is to the fuzzer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Shape: TypeAlias = Literal["", "cbor", "json"]


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        parse: takes any bytes, returns, or raises one of `errors`.
        errors: that it declares.
        samples: good ones, to start from.
        meets: whose bytes these are.
        weight: how many runs it gets beside the others.
        shape: in what form its samples are, where half of the mutations change a value in them and write them again:
            bytes that were changed blindly seldom get past the first check.
        skip: bytes in front of that form.
    """

    name: str
    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    samples: Callable[[], Iterable[bytes]]
    meets: str
    weight: int = 10
    shape: Shape = ""
    skip: int = 0
