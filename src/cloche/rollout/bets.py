"""Bets on a rate: evidence that stays valid however often, and whenever, one looks at it.

Of events that come one by one, each is a hit with some probability given all before it. A bet on odds that are
`ratio` times those of a rate multiplies by  ratio^hit / (1 - rate + rate * ratio)  at each event. While the
probability of a hit never exceeds the rate, every bet on more (ratio > 1) is expected to shrink or stay, and so is
the mean of several; by Ville's inequality that mean ever reaches 1/a with a probability of at most a. For ratios
below 1 the same holds of a rate that the probability never falls short of. The rate may differ from event to
event, as long as it was known before each. (Test martingales: Shafer, Shen, Vereshchagin, Vovk, "Test martingales,
Bayes factors and p-values", Statistical Science 26, 2011.)
"""

from __future__ import annotations

import math

import msgspec

#: Odds that are worse than they may be: a little, for what takes long to tell, up to "fails always".
WORSE = (1.25, 1.6, 2.2, 3.5, 6.0, 12.0, 40.0, 200.0, 2000.0)
#: Odds that are better than the worst that is allowed.
BETTER = (0.8, 0.6, 0.4, 0.2, 0.05, 0.001)
#: Near each other, for a bound on a rate of which much is known.
_FINE = (1.03, 1.06, 1.12, 1.25, 1.5, 2.0, 3.5, 8.0, 30.0, 300.0)


class Bets(msgspec.Struct, frozen=True):
    """Bets are what each of several bets is worth by now, as logarithms; together they stand at 1."""

    ratios: tuple[float, ...]
    logs: tuple[float, ...]

    @classmethod
    def on(cls, ratios: tuple[float, ...]) -> Bets:
        return cls(ratios, (0.0,) * len(ratios))

    def after(self, hits: int, events: int, rate: float) -> Bets:
        """The bets after so many events of one rate (0 < rate < 1), in whatever order."""
        if events == 0:
            return self
        pairs = zip(self.ratios, self.logs, strict=True)
        return Bets(self.ratios, tuple(log + _gain(hits, events, rate, ratio) for ratio, log in pairs))

    @property
    def log_evidence(self) -> float:
        """The logarithm of what one staked on all of them alike has become."""
        most = max(self.logs)
        return most + math.log(sum(math.exp(log - most) for log in self.logs) / len(self.logs))

    def growth(self, probability: float, rate: float) -> float:
        """What the best of them gains an event, as a logarithm, where hits have this probability."""
        return max(_gain(probability, 1, rate, ratio) for ratio in self.ratios)


def lower_bound(hits: int, events: int, alpha: float) -> float:
    """A rate that the probability of a hit is not below, whenever one asks, but for a chance of `alpha`."""
    if hits == 0:
        return 0.0
    low, high, least = 0.0, hits / events, math.log(1 / alpha)
    for _ in range(40):
        middle = (low + high) / 2
        if Bets.on(_FINE).after(hits, events, middle).log_evidence >= least:
            low = middle
        else:
            high = middle
    return low


def _gain(hits: float, events: int, rate: float, ratio: float) -> float:
    return hits * math.log(ratio) - events * math.log1p(rate * (ratio - 1))
