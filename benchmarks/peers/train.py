"""Trains the model of rows that every server of the benchmark serves."""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split


def train():
    """The fitted model and the rows it has not seen: (model, X [171,30] float64, y [171])."""
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_holdout, y_train, y_holdout = train_test_split(X, y, test_size=0.3, random_state=0)
    return GradientBoostingClassifier(random_state=0).fit(X_train, y_train), X_holdout, y_holdout
