"""What callers of a served model hold: `Client`, its async twin, and the predictions that they give."""

from cloche.client.answers import Prediction
from cloche.client.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "Prediction"]
