"""Packs a case's model for Cloche, as its README says: prepare.py FOLDER [CASE]."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import models
from train import train

import cloche

#: The peers wait as long as it takes.
SETTINGS = """
[online.cancer]
model = "cancer@champion"
deadline = "30s"
"""


def pack(folder: Path, case: str) -> cloche.Bundle:
    if case != "rows":
        (folder / "cloche.toml").write_text(SETTINGS)
    if case == "image":
        models.write_image(folder)
        return cloche.pack(folder / "model.onnx", models.images(64), name="cancer", directory=folder)
    if case == "minilm":
        held_out = {"text": models.short_texts(14)}
        return cloche.pack(folder / "minilm", held_out, task="embeddings", name="cancer", directory=folder)
    if case == "text":
        rows, labels = models.texts()
        held_out = {"text": rows[::2]}
        return cloche.pack(models.train_text(), held_out, labels[::2], name="cancer", directory=folder)
    model, X, y = train()
    return cloche.pack(model, X, y, name="cancer", directory=folder)


if __name__ == "__main__":
    print(pack(Path(sys.argv[1]), *sys.argv[2:] or ["rows"]))
