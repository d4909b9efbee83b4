from dataclasses import replace

import pytest

from etl.decide.learned import Learned
from etl.decide.progress import SweepProgress
from etl.decide.values import Bucket, Density, Sweep, Waiting, Window

DAY = Window(0, 24)
SWEEP = Sweep(0, 24, pages=10, finds=50, known=50, sure=False, unknown=0)


def _progress(*, found: int, hoped: int = 0) -> SweepProgress:
    """Follow a sweep that has shown some SIDs of known age, and none of those hoped for."""
    sweep = replace(SWEEP, finds=SWEEP.known + hoped, unknown=hoped)
    progress = SweepProgress(sweep, 1000)
    for seen in range(1, 6):
        progress.saw(known=found if seen == 1 else 0, unknown=0, seen=seen, page_size=1000)
    return progress


def test_what_was_learned_is_handed_to_the_planner() -> None:
    """Counts join those of the database, and what was swept, asked and lost is told."""
    learned = Learned().answered(DAY, 900).finished(DAY, seen=901, pages=1, planned=1, own=True)
    known = Density(counted=(Bucket(30, 40, 7),))
    waiting, density = learned.apply(Waiting(unknown=3, verifications=2), known, behind=5)
    assert waiting == Waiting(unknown=3, verifications=2, swept=(DAY,))
    assert density == Density(
        counted=(Bucket(30, 40, 7), Bucket(0, 24, 900), Bucket(0, 24, 901)), asked=1, behind=5
    )


def test_what_is_on_no_page_is_fetched_singly() -> None:
    """After pages in vain, SIDs of unknown age and Verifications count as single requests."""
    progress = _progress(found=0, hoped=30)
    assert progress.in_vain
    learned = Learned().gave_up(DAY, 10_000, progress)
    assert not learned.listed
    waiting, _ = learned.apply(Waiting(unknown=3, verifications=2, expired=1), Density(), behind=0)
    assert waiting == Waiting(expired=6)


@pytest.mark.parametrize(("pages", "failed"), [(1, 0), (13, 0), (14, 1), (40, 1)])
def test_a_sweep_fails_that_is_far_longer_than_planned(pages: int, failed: int) -> None:
    """A quarter more pages, and one, are as expected; the window counts as swept either way."""
    learned = Learned().finished(DAY, seen=9_000, pages=pages, planned=10, own=False)
    assert (learned.failed, learned.swept, learned.own) == (failed, (DAY,), ())


def test_a_sweep_that_has_shown_all_has_not_failed() -> None:
    """Given up with nothing left to find, a window leaves the plan as it was."""
    learned = Learned().gave_up(DAY, 10_000, _progress(found=50))
    assert learned == Learned(counted=(Bucket(0, 24, 10_000),), singly=(DAY,))


def test_a_window_given_up_twice_is_not_listed_a_third_time() -> None:
    """The second time it counts as failed, and what it hides is on no page."""
    once = Learned().gave_up(DAY, 10_000, _progress(found=20))
    assert (once.failed, once.listed) == (1, True)
    twice = once.gave_up(DAY, 10_000, _progress(found=50))
    assert (twice.failed, twice.listed) == (2, False)


def test_larger_pages_are_no_failure() -> None:
    """A window that is planned anew for larger pages is neither failed nor given up."""
    learned = Learned().outgrew(DAY, 5_000, 500).outgrew(DAY, 6_000, 1000)
    assert learned.grown == {500, 1000}
    assert (learned.failed, learned.singly, len(learned.counted)) == (0, (), 2)


def test_what_cannot_be_listed_is_left() -> None:
    """A window not worth its pages is fetched singly, and nothing is asked of a broken API."""
    learned = Learned().left(DAY).unreadable()
    assert learned == Learned(singly=(DAY,), works=False)
    assert Learned() == Learned(works=True)


@pytest.mark.parametrize(
    ("windows", "covered"),
    [
        ([(0, 24)], True),
        ([(12, 30), (-3, 12)], True),
        ([(0, 10), (5, 8), (9, 24)], True),
        ([(0, 10), (11, 24)], False),
        ([(1, 24)], False),
        ([(0, 23)], False),
        ([], False),
    ],
)
def test_a_span_is_covered_without_a_gap(windows: list[tuple[int, int]], *, covered: bool) -> None:
    """Windows count in any order, and only those whose every page this run has read."""
    learned = Learned()
    for start, end in windows:
        window = Window(start, end)
        learned = learned.finished(window, seen=1, pages=1, planned=1, own=True)
    # What another run began covers nothing.
    learned = learned.finished(DAY, seen=1, pages=1, planned=1, own=False)
    assert learned.covers(0, 24) == covered
