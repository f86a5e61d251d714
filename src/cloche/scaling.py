"""How many workers the load wants, as a pure function of what was measured: up at once, down slowly."""

from __future__ import annotations

import math

import msgspec

#: The windows over which requests are counted: what came just now, lately, and usually.
WINDOWS_S = (1.0, 10.0, 60.0)
#: So many standard deviations of a count are taken for chance, so that noise starts no workers: of one second; the
#: longer it was counted for, the fewer.
_CHANCE = 2.0
#: Requests from which on a shorter window says what one costs.
_ENOUGH = 20.0
#: There are not fewer workers for a difference of this share.
_SLACK = 0.1
_HAIR = 1e-6


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A Load is what all workers of a machine did in the `seconds` up to the moment `at`, over all deployments.

    `answered` were run (not shed), `busy_s` is how long that kept workers busy, summed over them. `waiting`
    requests had no worker yet, at the end.
    """

    at: float
    seconds: float
    arrivals: float
    answered: float
    busy_s: float
    waiting: float
    ready: int
    starting: int = 0
    #: From the start of a worker until it serves, as it was seen.
    startup_s: float = 1.0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A Policy is how many workers there may be, and how much of their time is planned with.

    `cores` is None where no model runs in the workers themselves. A backlog is to be gone within `drain_s`; there
    are fewer workers only once no more were wanted for `down_s`.
    """

    least: int
    most: int
    cores: int | None = None
    busy: float = 0.7
    drain_s: float = 5.0
    down_s: float = 300.0


class History(msgspec.Struct, frozen=True):
    """A History is the loads of the longest window, and how many workers were wanted when, by time."""

    loads: tuple[Load, ...] = ()
    wanted: tuple[tuple[float, int], ...] = ()

    def then(self, load: Load, policy: Policy) -> History:
        """With one load more. The first one wants what there is: who begins to look takes nothing away."""
        loads = (*(one for one in self.loads if one.at > load.at - WINDOWS_S[-1]), load)
        wanted = self.wanted or ((load.at, load.ready + load.starting),)
        count = needed(loads, policy)
        # of what was wanted before, less than now says nothing any more
        kept = [one for one in wanted if one[1] > count and one[0] > load.at - policy.down_s]
        return History(loads, (*kept, (load.at, count)))


class Decision(msgspec.Struct, frozen=True):
    """A Decision is how many workers there should be, and why, in words."""

    workers: int
    why: str


def desired_workers(history: History, policy: Policy) -> Decision:
    """How many workers there should be by what was seen so far; the least where nothing was."""
    if not history.loads:
        return Decision(policy.least, "nothing was measured yet")
    load, (_, now) = history.loads[-1], history.wanted[-1]
    most = max(count for _, count in history.wanted)
    limit, why_limit = _limit(policy)
    workers = max(policy.least, min(most, limit))
    why = _words(history.loads, load)
    held = load.ready + load.starting
    if most > limit:
        why += f": that wants {most}, {why_limit}"
    elif workers < held <= limit and workers > held * (1 - _SLACK):
        workers = held
    elif most > now and workers > policy.least:
        why += f": {most} were wanted within the last {policy.down_s:g} s"
    return Decision(workers, why)


def needed(loads: tuple[Load, ...], policy: Policy) -> int:
    """How many workers the loads of the longest window want, whatever there may be and was."""
    cost_s = _cost_s(loads)
    load = loads[-1]
    busy = _rate(loads) * cost_s / policy.busy
    backlog = load.waiting * cost_s / policy.drain_s
    return max(1, math.ceil(busy + backlog - _HAIR))


def _limit(policy: Policy) -> tuple[int, str]:
    limit = max(policy.least, policy.most)
    if policy.cores is not None and policy.cores < limit:
        return max(policy.least, policy.cores), f"which is more than the {policy.cores} cores"
    return limit, f"which is more than the most, {policy.most}"


def _rate(loads: tuple[Load, ...]) -> float:
    """Requests a second to be ready for, once who is started now is there."""
    rates = []
    for window_s in WINDOWS_S:
        count, seconds = _count(loads, window_s)
        chance = _CHANCE * max(0.0, 1 - seconds / WINDOWS_S[-1]) * math.sqrt(count)
        rates.append(max(0.0, count - chance) / seconds)
    rates[-1] += max(0.0, _slope(loads)) * loads[-1].startup_s
    return max(rates)


def _count(loads: tuple[Load, ...], window_s: float) -> tuple[float, float]:
    """Arrivals of the last seconds, and how many seconds were measured."""
    inside = [one for one in loads if one.at > loads[-1].at - window_s]
    return sum(one.arrivals for one in inside), max(_HAIR, sum(one.seconds for one in inside))


def _cost_s(loads: tuple[Load, ...]) -> float:
    """What one request keeps a worker busy, by the shortest window in which enough were answered."""
    for window_s in WINDOWS_S:
        inside = [one for one in loads if one.at > loads[-1].at - window_s]
        answered, busy_s = sum(one.answered for one in inside), sum(one.busy_s for one in inside)
        if answered >= _ENOUGH:
            return busy_s / answered
    return busy_s / max(1.0, answered)


def _slope(loads: tuple[Load, ...]) -> float:
    """By how many requests a second more come each second, by least squares, less what may be chance."""
    middle = sum(one.at for one in loads) / len(loads)
    spread = sum((one.at - middle) ** 2 for one in loads)
    if spread < 1.0:
        return 0.0
    count, seconds = _count(loads, WINDOWS_S[-1])
    slope = sum((one.at - middle) * one.arrivals / one.seconds for one in loads) / spread
    return slope - _CHANCE * math.sqrt(count / seconds / spread)


def _words(loads: tuple[Load, ...], load: Load) -> str:
    count, seconds = _count(loads, WINDOWS_S[1])
    queue = f", {load.waiting:.0f} wait" if load.waiting >= 1 else ""
    return f"{count / seconds:.3g} requests/s of {1000 * _cost_s(loads):.3g} ms{queue}"
