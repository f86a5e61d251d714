"""Batch runs in this process: begun or resumed, held against all others, and told of in the store."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from cloche.app.answering import Here
from cloche.app.answers import Answers
from cloche.app.batch_task import RunPlace, holder_here, is_gone
from cloche.app.batch_view import plan_of
from cloche.app.heart import Heart
from cloche.app.loaded import Loaded
from cloche.batch.fingerprint import fingerprint
from cloche.batch.places import find
from cloche.batch.plan import Outcome, Plan, Progress
from cloche.batch.run import run_batch
from cloche.bundle.bundle import Bundle
from cloche.core.errors import BusyError, ClocheError, ConfigError, ConflictError, NotFoundError
from cloche.registry import Registry
from cloche.settings import Batch
from cloche.store.batches import Batches, Claim, RunRow, RunState, new_run_id
from cloche.store.blobs import BundleFolder
from cloche.store.database import Store
from cloche.store.trust import TrustedKeys

#: How far a batch run steps back behind whoever serves.
_NICE = 10


class Runs:
    """A Runs begins and resumes batch runs of a store in this process."""

    def __init__(self, store: Store, place: RunPlace) -> None:
        self._store = store
        self._place = place
        self._registry = Registry(store, BundleFolder(Path(place.bundles)))
        self._batches = Batches(store)

    def begin(self, batch: Batch, *, name: str | None, slot: float | None = None) -> Run:
        """Pin what a run reads and answers by, and hold it.

        Raises NotFoundError, ConfigError and BusyError for a model or source that can't be read, ConflictError
        CL-E520 where a run of this name goes on, RefusedError.
        """
        version = self._registry.resolve(batch.model)
        plan = Plan(
            run=new_run_id(),
            ref=str(version),
            digest=version.digest,
            source=batch.source,
            sink=batch.sink,
            key=batch.key,
            keep=batch.keep,
            chunk=batch.chunk,
            rejects=None if batch.rejects is None else str(batch.rejects),
            fail_above=batch.fail_above,
            at_least_once=batch.at_least_once,
            fingerprint=fingerprint(find(batch.source, look_up), batch.key),
        )
        bundle = self._open(plan)
        claim = self._batches.begin(
            msgspec.to_builtins(plan), name=name, holder=holder_here(self._place.machine), slot=slot
        )
        return Run(self._batches, claim, plan, bundle, allow_code=self._place.allow_code)

    def resume(self, which: str) -> Run:
        """Go on with a run, named by its id, the start of that, or the name whose newest run it is.

        Raises NotFoundError CL-E320; ConflictError where another process holds it (CL-E520) or it is over
        (CL-E521); RefusedError.
        """
        row = self._batches.find(which)
        plan = plan_of(row)
        bundle = self._open(plan)
        gone = row.holder if is_gone(row.holder, self._place.machine) else None
        claim = self._batches.resume(row.id, holder=holder_here(self._place.machine), gone=gone)
        return Run(self._batches, claim, plan, bundle, allow_code=self._place.allow_code)

    def _open(self, plan: Plan) -> Bundle:
        """The very bundle that was pinned, whatever its version or alias has become."""
        folder = self._registry.folder
        if plan.digest not in folder:
            raise NotFoundError(
                f"the bundle of {plan.ref} is not here any more",
                code="CL-E301",
                hint="import it again, and resume: cloche import",
            )
        trusted = TrustedKeys(self._store).public_keys()
        bundle = Bundle.open(folder.path(plan.digest), trusted, digest=plan.digest)
        bundle.reference = plan.ref
        return bundle


class Run:
    """A Run is a batch run that this process holds; `carry_out` takes it to its end, or to a stop."""

    def __init__(self, batches: Batches, claim: Claim, plan: Plan, bundle: Bundle, *, allow_code: bool) -> None:
        self.plan = plan
        self._batches = batches
        self._claim = claim
        self._bundle = bundle
        self._allow_code = allow_code

    def carry_out(self, tell: Callable[[Progress], None], stop: threading.Event) -> RunRow:
        """Take the run as far as it goes; what it came to stands in the store.

        `stop` ends it after its chunk, so that it can be resumed. Raises as `run_batch`, and ConflictError
        CL-E520 where another process took it meanwhile.
        """
        step_back()
        heart = Heart(self._batches, self._claim, stop)
        try:
            with heart:
                outcome, answers = self._run(heart, tell)
        except ConflictError as error:
            if error.code != "CL-E520":
                self._end("failed", error.message)
            raise
        except BusyError as error:  # what was out of reach may be back when it is resumed
            self._end("interrupted", error.message)
            raise
        except ClocheError as error:
            self._end("failed", error.message)
            raise
        except BaseException:
            self._end("interrupted", "it was stopped at once")
            raise
        state: RunState = outcome.end
        if outcome.end == "cancelled" and heart.cancelled_by is None:
            state = "interrupted"
        report = {
            "seconds": round(outcome.seconds, 3),
            "rows_per_s": round((outcome.rows - heart.progress.resumed) / max(outcome.seconds, 1e-9), 1),
            "resumed_rows": heart.progress.resumed,
            "outputs": answers.told(),
        }
        why = outcome.why or (f"by {heart.cancelled_by}" if state == "cancelled" else "")
        rows, rejected = outcome.rows, outcome.rejected
        self._batches.end(self._claim, state, why=why, rows=rows, rejected=rejected, report=report)
        return self._batches.get(self.plan.run)

    def _run(self, heart: Heart, tell: Callable[[Progress], None]) -> tuple[Outcome, Answers]:
        def heard(progress: Progress) -> None:
            heart.progress = progress
            tell(progress)

        answers = Answers(self._bundle.profile())
        with Here(Loaded(self._bundle, allow_code=self._allow_code)) as model:
            outcome = run_batch(
                self.plan,
                model.signature,
                lambda columns: answers.counted(model.many(columns)),
                look_up=look_up,
                tell=heard,
                is_stopped=heart.is_stopped,
            )
        heart.check()
        return outcome, answers

    def _end(self, state: RunState, why: str) -> None:
        """What is said last of a run that raised, if it can be said."""
        with contextlib.suppress(ClocheError):
            self._batches.end(self._claim, state, why=why)


def look_up(place: str) -> str:
    """What `env:NAME` or `file:PATH` stands for. Raises ConfigError CL-E201."""
    kind, _, target = place.partition(":")
    if kind == "env":
        if not (found := os.environ.get(target)):
            raise ConfigError(
                f"the variable {target!r} is not set", code="CL-E201", hint="set it where the run is started"
            )
        return found
    try:
        return Path(target).read_text("utf-8").strip()
    except (OSError, ValueError):
        raise ConfigError(f"the file {target!r} can't be read", code="CL-E201", hint="check its path") from None


def step_back() -> None:
    """Let whoever serves on this machine go first; before threads are started, which take over how it is."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
