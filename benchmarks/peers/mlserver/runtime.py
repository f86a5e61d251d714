"""MLServer's custom runtime for what is no plain scikit-learn model on numbers."""

from __future__ import annotations

import os
from pathlib import Path

import models
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class CaseModel(MLModel):
    async def load(self) -> bool:
        self.codec = StringCodec if os.environ["CASE"] in ("text", "minilm") else NumpyCodec
        self.model = models.load(os.environ["CASE"], Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        labels = np.asarray(self.model(self.codec.decode_input(payload.inputs[0])))
        outputs = [NumpyCodec.encode_output("label", labels)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
