"""A small semantic search: which of these sentences says most nearly what I mean?

    python examples/minilm/search.py "how do I get a new password?" examples/minilm/sentences.txt

Needs a coordinator with the family `minilm-l6`, see README.md. The sentences go to it in batches; ranking happens
here, because all vectors have length 1 and their product is the cosine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_agent.client import Client
from edge_agent.errors import EdgeAgentError

FAMILY = "minilm-l6"
BATCH = 16


def embed(client: Client, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return a unit vector for each text, [N, 384]."""
    rows = []
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        result = client.infer(FAMILY, {"text": list(part)})
        rows.append(result.outputs["embedding"])
    return np.concatenate(rows)


def main() -> int:
    """Embed the sentences and the question; print the nearest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("sentences", type=Path, help="one a line")
    parser.add_argument("--coordinator", metavar="URL", default="http://127.0.0.1:8420", help="default: %(default)s")
    parser.add_argument("--top", metavar="N", type=int, default=5, help="default: %(default)s")
    chosen = parser.parse_args()
    sentences = [line for line in chosen.sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        with Client(chosen.coordinator) as client:
            found = embed(client, sentences) @ embed(client, [chosen.question])[0]
    except EdgeAgentError as error:
        print(f"{error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_status
    for index in np.argsort(-found)[: chosen.top]:
        print(f"{found[index]:.3f}  {sentences[index]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
