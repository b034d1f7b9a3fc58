"""MLServer: a runtime in its process, asked over the Open Inference Protocol in JSON."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from model import DTYPE, SHAPE, Model


class Runtime(MLModel):
    """One model."""

    async def load(self) -> bool:
        """Load it."""
        self._model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run."""
        given = NumpyCodec.decode_input(payload.inputs[0]).astype(DTYPE).reshape(SHAPE)
        outputs = [
            NumpyCodec.encode_output(f"out{n}", np.asarray(array)) for n, array in enumerate(self._model.arrays(given))
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
