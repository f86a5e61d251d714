"""What a batch run answered, beside what the model answered when it was packed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cloche.app.answers import Answers
from cloche.bundle.profile import Categorical, Profile, Scores
from cloche.bundle.profiling import profile_numbers, profile_scores

LABELS = Categorical(rows=100, missing=0, values=("no", "yes"), counts=(80, 20), other=0, distinct=2)


def profile(**outputs: Categorical | Scores) -> Profile:
    return Profile(format=1, rows=100, inputs={}, outputs=outputs)  # type: ignore[arg-type]


def test_labels_are_told_as_shares_also_those_that_did_not_come() -> None:
    answers = Answers(profile(label=LABELS))
    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(lambda _: answers.counted({"label": np.array(["no", "new"], object)}), range(50)):
            pass
    told = answers.told()["label"]
    assert told["shares"] == {"no": 0.5, "new": 0.5, "yes": 0.0}
    assert told["packed"] == {"no": 0.8, "new": 0.0, "yes": 0.2}


def test_numbers_are_told_as_quantiles_on_the_bins_of_the_profile() -> None:
    rng = np.random.default_rng(0)
    packed = rng.normal(0, 1, 20_000)
    answers = Answers(profile(value=profile_numbers(packed)))  # type: ignore[arg-type]
    for part in np.split(rng.normal(1, 1, 20_000), 4):
        answers.counted({"value": part})
    answers.counted({"value": np.array([np.nan, np.inf])})
    told = answers.told()["value"]
    assert told["packed"]["p50"] == pytest.approx(0.0, abs=0.15)
    assert told["quantiles"]["p50"] == pytest.approx(1.0, abs=0.3)
    assert told["quantiles"]["p05"] == pytest.approx(-0.65, abs=0.3)


def test_scores_by_class_are_told_each() -> None:
    packed = np.linspace(0, 1, 1_000)
    answers = Answers(profile(**{"probabilities[yes]": profile_scores(packed)}))
    given = {"probabilities": {"yes": np.full(10, 0.251), "no": np.full(10, 0.749)}}
    assert answers.counted(given) is given
    told = answers.told()
    assert list(told) == ["probabilities[yes]"]
    assert told["probabilities[yes]"]["quantiles"]["p50"] == pytest.approx(0.251, abs=0.005)
    assert told["probabilities[yes]"]["packed"]["p50"] == pytest.approx(0.5, abs=0.006)


def test_what_has_no_profile_is_not_told() -> None:
    answers = Answers(None)
    answers.counted({"value": np.arange(3.0), "image": np.zeros((3, 2))})
    assert answers.told() == {}
    assert Answers(profile(label=LABELS)).told() == {}
