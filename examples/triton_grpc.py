"""Asks for the digit in `scan.json` over gRPC, with Triton's own client: pip install 'tritonclient[grpc]'.

`python examples/triton_grpc.py 127.0.0.1:8421`, and where the coordinator asks for it:
`--ca club-ca.pem` (TLS, and whom to trust) and `--key-file reports.key` (an API key, in the file's first line).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton


def main() -> None:
    """Ask, and print the answer and what it says of itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="HOST:PORT of the coordinator's gRPC")
    parser.add_argument("--ca", metavar="FILE", help="use TLS, and trust this authority (PEM)")
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="file with an API key")
    args = parser.parse_args()

    (scan,) = json.loads((Path(__file__).parent / "scan.json").read_text())["inputs"]
    image = triton.InferInput(scan["name"], scan["shape"], scan["datatype"])
    image.set_data_from_numpy(np.array(scan["data"], np.float32).reshape(scan["shape"]))
    headers = {}
    if args.key_file is not None:
        headers["authorization"] = f"Bearer {args.key_file.read_text().splitlines()[0]}"
    with triton.InferenceServerClient(args.address, ssl=args.ca is not None, root_certificates=args.ca) as client:
        result = client.infer("digits", [image], headers=headers)
    response = result.get_response()
    print(f"It is a {result.as_numpy('label')[0]}, says {response.model_name}, {response.model_version}.")
    for name in ("job_id", "agent_id", "verification", "receipt"):
        print(f"{name:12} {response.parameters[name].string_param}")


if __name__ == "__main__":
    main()
