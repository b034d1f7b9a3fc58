"""Run every model of a folder on its inputs and keep the outputs: what one machine of a class computes.

Started by `benchmarks/classes.py`, also under an emulated processor: it needs numpy and onnxruntime alone.
`python run_models.py FOLDER OUT [THREADS]` reads `MODEL/inputs.npz` (arrays `0:NAME`, `1:NAME`, …) and
`MODEL/VARIANT.onnx`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime


def feeds_of(path: Path) -> list[dict[str, np.ndarray]]:
    """Return the samples of a file, in order."""
    feeds: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path) as file:
        for key in file.files:
            number, name = key.split(":", 1)
            feeds.setdefault(int(number), {})[name] = file[key]
    return [feeds[number] for number in sorted(feeds)]


def main() -> None:
    """Write `OUT`, an archive with an array `MODEL/VARIANT/SAMPLE/OUTPUT` for each output."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    options.log_severity_level = 3
    found: dict[str, np.ndarray] = {}
    for inputs in sorted(folder.glob("*/inputs.npz")):
        feeds = feeds_of(inputs)
        for model in sorted(inputs.parent.glob("*.onnx")):
            where = f"{inputs.parent.name}/{model.stem}"
            try:
                session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
                names = [output.name for output in session.get_outputs()]
                for number, feed in enumerate(feeds):
                    for name, value in zip(names, session.run(None, feed), strict=True):
                        found[f"{where}/{number}/{name.replace('/', '|')}"] = np.asarray(value)
            except Exception as error:  # noqa: BLE001 - a model that does not run on a machine is a finding, too
                print(f"{where}: {str(error)[:200]}", file=sys.stderr)
            print(where, flush=True)
    found["version"] = np.array(onnxruntime.__version__)
    np.savez(out, **found)


if __name__ == "__main__":
    main()
