"""The sign of life of a batch run: it tells how far, hears of a wish to stop, and knows when the run is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.journeys.serving import until

from cloche.app.heart import Heart
from cloche.batch.plan import Progress
from cloche.core.errors import ConflictError
from cloche.store.batches import Batches
from cloche.store.database import Store

RUN = "run_aaaaaaaaaaaa"


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Batches]:
    with Store(f"sqlite:///{tmp_path / 'state.db'}") as store:
        yield Batches(store)


def test_it_tells_how_far_the_run_is(runs: Batches) -> None:
    with Heart(runs, runs.begin({"run": RUN}, name=None, holder="here"), threading.Event(), look_s=0.01) as heart:
        heart.progress = Progress(rows=30, rejected=2, total=100)
        until(lambda: runs.get(RUN).rows == 30)
        assert not heart.is_stopped()
    assert (runs.get(RUN).rejected, runs.get(RUN).total) == (2, 100)


def test_a_wish_to_cancel_and_a_person_at_the_keyboard_stop_the_run(runs: Batches) -> None:
    stop = threading.Event()
    with Heart(runs, runs.begin({"run": RUN}, name=None, holder="here"), stop, look_s=0.01) as heart:
        assert not heart.is_stopped()
        stop.set()
        assert heart.is_stopped()
        stop.clear()
        runs.cancel(RUN)
        heart.progress = Progress(rows=1, rejected=0, total=None)
        until(heart.is_stopped)
    assert heart.cancelled_by
    heart.check()


def test_who_has_lost_the_run_stops(runs: Batches) -> None:
    claim = runs.begin({"run": RUN}, name=None, holder="here")
    with Heart(runs, claim, threading.Event(), look_s=0.01) as heart:
        runs.resume(RUN, holder="there", gone="here")
        heart.progress = Progress(rows=1, rejected=0, total=None)
        until(heart.is_stopped)
        with pytest.raises(ConflictError) as caught:
            heart.check()
    assert caught.value.code == "CL-E520"
    assert runs.get(RUN).rows == 0
