"""Writes the model as MLflow's folder, which `mlflow models serve` serves."""

from __future__ import annotations

import sys
from pathlib import Path

import joblib
import mlflow.sklearn

folder = Path(sys.argv[1])
mlflow.sklearn.save_model(
    joblib.load(folder / "model.joblib"),
    folder / "mlflow",
    serialization_format="cloudpickle",
    pip_requirements=["mlflow", "scikit-learn"],
)
