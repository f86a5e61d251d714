"""Packs the model for Cloche, as its README says."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from train import train

import cloche

if __name__ == "__main__":
    model, X, y = train()
    print(cloche.pack(model, X, y, name="cancer", directory=Path(sys.argv[1])))
