"""Retries are a tenth of the calls, single failures aside; what killed two hosts is refused for ten minutes."""

from __future__ import annotations

from cloche.runtimes.retry import RetryBudget, Suspects


def test_single_failures_are_retried_and_an_outage_is_not() -> None:
    budget = RetryBudget(0.0)

    assert [budget.spend(0.0) for _ in range(5)] == [True, True, True, False, False]


def test_one_retry_comes_back_a_second_up_to_the_floor() -> None:
    budget = RetryBudget(0.0)
    while budget.spend(0.0):
        pass

    assert not budget.spend(0.5)
    assert budget.spend(1.5)
    assert not budget.spend(1.6)
    assert [budget.spend(1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_tenth_of_the_calls_may_be_retried() -> None:
    budget = RetryBudget(0.0)
    while budget.spend(0.0):
        pass
    for _ in range(205):
        budget.call()

    assert sum(budget.spend(0.0) for _ in range(100)) == 20


def test_the_share_does_not_pile_up_without_end() -> None:
    budget = RetryBudget(0.0, cap=5.0)
    for _ in range(1000):
        budget.call()

    assert sum(budget.spend(0.0) for _ in range(100)) == 5


def test_a_request_is_refused_after_two_deaths_for_ten_minutes() -> None:
    suspects = Suspects()
    assert not suspects

    assert suspects.blame(b"x", 0.0) == 1
    assert suspects.is_suspect(b"x", 1.0)
    assert not suspects.is_refused(b"x", 1.0)
    assert suspects.blame(b"x", 10.0) == 2
    assert suspects.is_refused(b"x", 609.0)
    assert not suspects.is_refused(b"y", 609.0)
    assert not suspects.is_refused(b"x", 610.0)
    assert not suspects.is_suspect(b"x", 610.0)


def test_a_request_that_was_answered_is_no_suspect() -> None:
    suspects = Suspects()
    suspects.blame(b"x", 0.0)
    suspects.forgive(b"x")

    assert not suspects.is_suspect(b"x", 1.0)
    assert suspects.blame(b"x", 2.0) == 1


def test_the_list_of_suspects_has_an_end() -> None:
    suspects = Suspects()
    for number in range(2000):
        suspects.blame(str(number).encode(), 0.0)

    assert not suspects.is_suspect(b"0", 1.0)
    assert suspects.is_suspect(b"1999", 1.0)
