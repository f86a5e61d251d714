"""Do two versions differ in a mean, looked at as often as one likes? Confidence sequences. Pure.

For each arm the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas ("Time-uniform
central limit theory and asymptotic confidence sequences", Annals of Statistics 52, 2024): after n values with
variance v, at every n at once, the mean lies within

    sqrt(v * 2 * (n r² + 1) / (n² r²) * log(sqrt(n r² + 1) / a))

but for a chance of a, where r is chosen to be tightest about some n. The interval of a difference adds both.
"""

from __future__ import annotations

import math

import msgspec

#: The width is tightest when an arm has had about so many values.
_TIGHTEST_AT = 1_000
#: Fewer values in an arm say nothing.
LEAST = 100


#: That the callers of a trial are ever taken for badly dealt when they are not.
_ALPHA_DEALT = 0.001
#: How many callers the guess at another share is worth, before any were dealt.
_WORTH = 200.0


class Sums(msgspec.Struct, frozen=True):
    """Sums are a metric of one arm: how many values, their sum and that of their squares.

    `least` is what the variance is taken to be at least: a few values may all be the same by chance.
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = 0.0

    @classmethod
    def of_share(cls, hits: int, n: int) -> Sums:
        """The sums of n values that are 1 (hits) or 0; what never happened may happen next."""
        share = (hits + 1) / (n + 2)
        return cls(n, hits, hits, share * (1 - share))

    def plus(self, other: Sums) -> Sums:
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares, self.least)

    def since(self, before: Sums) -> Sums:
        """What came on top; all of it, where it began anew meanwhile."""
        if self.n < before.n:
            return self
        return Sums(self.n - before.n, self.total - before.total, self.squares - before.squares)

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else 0.0

    @property
    def variance(self) -> float:
        return max(self.least, self.squares / self.n - self.mean**2) if self.n else self.least


class Difference(msgspec.Struct, frozen=True):
    """A Difference is candidate less stable, with the interval that holds it at whatever moment one looks."""

    effect: float
    low: float
    high: float
    candidate: int
    stable: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out no difference at all."""
        return self.low > 0.0 or self.high < 0.0


def difference(stable: Sums, candidate: Sums, alpha: float) -> Difference | None:
    """The difference of both means, wrong at any time with a chance of `alpha`; None with too few values."""
    if min(stable.n, candidate.n) < LEAST:
        return None
    effect = candidate.mean - stable.mean
    half = _half_width(stable, alpha / 2) + _half_width(candidate, alpha / 2)
    return Difference(effect, effect - half, effect + half, candidate.n, stable.n)


def is_badly_dealt(candidate: int, stable: int, share: float) -> bool:
    """Whether so many units of each arm are not what a candidate's `share` (0 to 1) deals out.

    It may be asked at any time: the likelihood of these counts under shares drawn from a beta distribution about
    the one that is meant, over that under it, is a test martingale (Lindon, Malek: "Anytime-valid inference for
    multinomial count data", NeurIPS 2022).
    """
    if not 0.0 < share < 1.0:
        return False
    mine, theirs = _WORTH * share, _WORTH * (1 - share)
    mixed = _log_beta(mine + candidate, theirs + stable) - _log_beta(mine, theirs)
    meant = candidate * math.log(share) + stable * math.log1p(-share)
    return mixed - meant >= math.log(1 / _ALPHA_DEALT)


def _log_beta(one: float, other: float) -> float:
    return math.lgamma(one) + math.lgamma(other) - math.lgamma(one + other)


def _half_width(sums: Sums, alpha: float) -> float:
    log = -2 * math.log(alpha)
    r2 = (log + math.log(log) + 1) / _TIGHTEST_AT
    n = sums.n
    # an arm without any variance so far may have some: as if the next value were half of its mean away
    variance = sums.variance + (0.25 / n) * sums.mean**2
    return math.sqrt(variance * 2 * (n * r2 + 1) / (n**2 * r2) * math.log(math.sqrt(n * r2 + 1) / alpha))
