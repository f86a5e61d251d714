"""Marks: a set that the processes of a machine share, and that forgets."""

from __future__ import annotations

from pathlib import Path

from cloche.core.marks import Claims, Marks


def test_what_was_added_is_there_for_others_that_have_the_file_open(tmp_path: Path) -> None:
    one, other = Marks(tmp_path / "marks"), Marks(tmp_path / "marks")
    for mark in (7, -7, 2**63 - 1, -(2**63)):
        assert not other.has(mark)
        one.add(mark)
        assert other.has(mark)
    assert Marks(tmp_path / "marks").has(7)
    assert (tmp_path / "marks").stat().st_mode & 0o777 == 0o600


def test_it_never_grows_and_forgets_what_others_drove_out(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks")
    size = (tmp_path / "marks").stat().st_size
    for mark in range(1, 20_000):
        marks.add(mark)
    assert marks.has(19_999)
    assert not marks.has(1)
    assert (tmp_path / "marks").stat().st_size == size


def test_where_the_file_can_not_be_made_it_is_this_processes_own(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "nowhere" / "marks")
    marks.add(7)
    assert marks.has(7)


def test_each_key_of_a_trial_is_claimed_once_and_a_later_trial_begins_anew(
    tmp_path: Path,
) -> None:
    keys = [b"user-%d" % number for number in range(1_000)]
    one, other = Claims(tmp_path / "claims", 7), Claims(tmp_path / "claims", 7)
    claimed = [key for number, key in enumerate(keys) if (one, other)[number % 2].claim(key)]
    assert len(claimed) > 950  # few fall together
    assert not any(one.claim(key) or other.claim(key) for key in keys)
    assert sum(Claims(tmp_path / "claims", 8).claim(key) for key in keys) > 950
