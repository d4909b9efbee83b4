import math
import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.decide.cover import cover
from etl.decide.estimate import estimate
from etl.decide.plan import plan, seconds
from etl.decide.progress import SweepProgress, next_page_size, pages_left
from etl.decide.values import Bucket, Density, Plan, Sweep, Waiting, Window
from tests.support.harness import SCALE, scaled
from tests.support.planner_world import (
    HOUR,
    PAGE,
    World,
    best,
    bound,
    grid,
    knowledge,
    spent,
    spread,
)
from tests.support.planner_world import Situation as Case

NOW = 720 * HOUR
SHARE = 109 if SCALE < 1 else 29
"""Of the whole grid, every so-many-th situation: over 200, at full counts over 800."""


def _case(world: World, kind: str, order: str = "desc") -> Case:
    return Case("", kind, (), world, knowledge(kind, world), order)


@pytest.fixture(scope="module")
def costs() -> list[tuple[Case, float, int]]:
    """Run the grid: situation, the best possible, ours."""
    return [(case, best(case.world), spent(case)) for case in grid(SHARE)]


@pytest.mark.soak
def test_the_grid_is_as_wide_as_promised(costs: list[tuple[Case, float, int]]) -> None:
    """At least 200 situations, from 1 SID to 1,000,000, with every kind of knowledge."""
    waiting = [case.world.singles for case, _, _ in costs]
    assert len(costs) >= 200
    assert (min(waiting), max(waiting)) == (1, 1_000_000)
    assert min(Counter(case.group for case, _, _ in costs).values()) >= 30


@pytest.mark.soak
def test_the_grid_costs_little_more_than_the_best(costs: list[tuple[Case, float, int]]) -> None:
    """No situation costs more than its bound, and none more than single fetches + 2."""
    over = [(case.name, least, ours) for case, least, ours in costs if ours > bound(case, least)]
    assert not over


@pytest.mark.soak
def test_nothing_known_rarely_costs_more(costs: list[tuple[Case, float, int]]) -> None:
    """Without any knowledge, nine of ten situations keep the bound of those with it."""
    blank = [(ours, least) for case, least, ours in costs if case.group == "none"]
    kept = sum(ours <= 1.15 * least + 2 for ours, least in blank)
    assert kept >= 0.9 * len(blank)


@pytest.mark.parametrize("order", ["desc", "asc", "shuffled"])
@pytest.mark.parametrize("kind", ["exact", "right", "none", "third", "triple"])
def test_a_day_of_100_000_takes_110_requests(kind: str, order: str) -> None:
    """All 100,000 attempts of one day wait: the day is listed."""
    attempts = spread(100_000, [1.0] * 24)
    assert spent(_case(World(HOUR, attempts, attempts, (0,) * 24), kind, order)) <= 110


@pytest.mark.parametrize("kind", ["exact", "right", "none", "third", "triple"])
def test_unknown_ages_cost_the_cheaper_way(kind: str) -> None:
    """10,000 of 1,000,000 attempts of 30 days, ages unknown: the cheaper of both ways + 2 %."""
    attempts = spread(1_000_000, [1.0 + i % 24 for i in range(720)])
    hidden = spread(10_000, [float(value) for value in attempts])
    assert spent(_case(World(HOUR, attempts, (0,) * 720, hidden), kind)) <= 1_000 * 1.02


@pytest.mark.parametrize("kind", ["exact", "right", "none", "third", "triple"])
def test_six_hours_take_25_requests(kind: str) -> None:
    """5,000 SIDs inside 6 hours of an account of 1,000,000 attempts a month are listed."""
    attempts = spread(1_000_000, [1.0 + 0.8 * math.sin(i) for i in range(720)])
    known = spread(5_000, [1.0 if 500 <= i < 506 else 0.0 for i in range(720)])
    assert spent(_case(World(HOUR, attempts, known, (0,) * 720), kind)) <= 25


def test_a_crowd_that_nobody_waits_for_is_skipped() -> None:
    """Two windows leave out the campaign hour between them."""
    known = (Bucket(0, 10 * HOUR, 500), Bucket(11 * HOUR, 20 * HOUR, 500))
    believed = (
        Bucket(0, 10 * HOUR, 5_000), Bucket(10 * HOUR, 11 * HOUR, 90_000),
        Bucket(11 * HOUR, 20 * HOUR, 4_000),
    )  # fmt: skip
    result = plan(Waiting(known), Density(counted=believed), page_size=PAGE, now=NOW)
    expected = [(0, 10 * HOUR, 5), (11 * HOUR, 20 * HOUR, 4)]
    assert expected == [(s.start, s.end, s.pages) for s in result.sweeps]
    assert (result.requests, result.fetches, result.ask) == (9, 0, ())


def test_a_small_page_turns_the_plan_to_fetches() -> None:
    """Twelve SIDs in an hour of 3,000: three pages of 1,000 pay, thirty of 100 do not."""
    waiting = Waiting((Bucket(0, HOUR, 12),))
    density = Density(counted=(Bucket(0, HOUR, 3_000),))
    listed = plan(waiting, density, page_size=1000, now=NOW)
    fetched = plan(waiting, density, page_size=100, now=NOW)
    assert (listed.requests, fetched.requests) == (3, 12)
    assert (fetched.fetch_only, fetched.sweep_only) == (12, 30)


def test_expired_sids_are_fetched_whatever_is_cheapest() -> None:
    """Those that no list shows any more are single fetches beside the sweep."""
    waiting = Waiting((Bucket(0, HOUR, 900),), expired=7)
    result = plan(waiting, Density(counted=(Bucket(0, HOUR, 1_000),)), page_size=PAGE, now=NOW)
    assert (result.fetches, result.requests) == (7, 8)


def test_verifications_are_swept_when_they_outnumber_the_pages() -> None:
    """3,000 VE SIDs among 100,000 attempts are found by 100 pages."""
    waiting = Waiting(verifications=3_000, unknown_from=0, unknown_to=NOW)
    density = Density(counted=(Bucket(0, NOW, 100_000),))
    assert plan(waiting, density, page_size=PAGE, now=NOW).requests == 100


def test_what_was_swept_holds_no_unknown_sids() -> None:
    """The half already listed is not listed again."""
    half = NOW // 2
    waiting = Waiting(unknown=500, unknown_to=NOW, swept=(Window(0, half),))
    density = Density(counted=(Bucket(0, half, 50_000), Bucket(half, NOW, 50_000)))
    (sweep,) = plan(waiting, density, page_size=PAGE, now=NOW).sweeps
    assert (sweep.start, sweep.end, sweep.pages) == (half, NOW, 50)


@pytest.mark.parametrize(("strategy", "requests"), [("auto", 3), ("fetch", 3), ("sweep", 9)])
def test_a_strategy_is_obeyed(strategy: str, requests: int) -> None:
    """Three SIDs in a crowd are cheaper singly, and are listed when told so."""
    waiting = Waiting((Bucket(0, HOUR, 3),))
    density = Density(counted=(Bucket(0, HOUR, 9_000),))
    result = plan(waiting, density, page_size=PAGE, now=NOW, strategy=strategy)  # type: ignore[arg-type]
    assert result.requests == requests


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_few_sids_are_not_worth_a_question(count: int) -> None:
    """Up to three SIDs and no knowledge: just fetch."""
    waiting = Waiting(unknown=count, unknown_to=NOW)
    result = plan(waiting, Density(), page_size=PAGE, now=NOW)
    assert result == Plan(
        (), (), count, count, count, count, count, result.sweep_only, guessed=count > 0
    )


@pytest.mark.parametrize("known", [False, True])
def test_a_first_backfill_costs_one_page_in_a_thousand_or_a_request_each(*, known: bool) -> None:
    """Until the Summary has said how many there are, the plan is a range from best to worst."""
    old = Waiting((Bucket(0, NOW, 20_000),))
    waiting = old if known else Waiting(unknown=20_000, unknown_to=NOW)
    result = plan(waiting, Density(), page_size=PAGE, now=NOW)
    assert (result.least, result.most) == (21, 20_001)
    told = Density(counted=(Bucket(0, NOW, 20_000),), asked=1)
    result = plan(waiting, told, page_size=PAGE, now=NOW)
    assert (result.least, result.requests, result.most) == (21, 21, 21)


def test_a_certain_plan_asks_nothing() -> None:
    """Neither exact counts nor a database that may be wrong by 3 without harm are asked about."""
    waiting = Waiting((Bucket(0, HOUR, 5_000),))
    for density in (Density(counted=(Bucket(0, HOUR, 9_000),)), Density((Bucket(0, HOUR, 9_000),))):
        assert not plan(waiting, density, page_size=PAGE, now=NOW).ask


def test_an_uncertain_plan_asks_first() -> None:
    """Where a factor of 3 decides between the two ways, Summary is asked, once."""
    waiting = Waiting((Bucket(0, HOUR, 50),))
    believed = (Bucket(0, HOUR, 60_000),)
    assert plan(waiting, Density(believed), page_size=PAGE, now=NOW).ask == (Window(0, HOUR),)
    answered = Density(believed, (Bucket(0, HOUR, 20_000),), asked=1, behind=1)
    result = plan(waiting, answered, page_size=PAGE, now=NOW)
    assert (result.ask, result.requests) == ((), 21)


def test_a_month_of_a_million_is_planned_at_once() -> None:
    """2,880 quarter hours and 1,000,000 SIDs: one window, in less than 0.3 s."""
    quarter = HOUR // 4
    known = tuple(Bucket(i * quarter, (i + 1) * quarter, 347) for i in range(2_880))
    density = Density(tuple(Bucket(b.start, b.end, 3 * b.count) for b in known))
    started = time.process_time()
    result = plan(Waiting(known), density, page_size=PAGE, now=NOW)
    assert time.process_time() - started < 0.3
    assert [(s.start, s.end) for s in result.sweeps] == [(0, NOW)]


def test_a_sweep_ends_when_its_pages_cost_more_than_they_find() -> None:
    """Break-even is no reason to go on."""
    progress = SweepProgress(Sweep(0, HOUR, 10, 40.0, 40, sure=True), 1_000)
    progress.saw(known=30, unknown=0, seen=1, page_size=1_000)
    assert (progress.pages_left, progress.sids_left, progress.worth_going_on) == (9, 10, True)
    progress.saw(known=2, unknown=0, seen=2, page_size=1_000)
    assert (progress.pages_left, progress.sids_left, progress.worth_going_on) == (8, 8, False)


def test_sids_of_unknown_age_are_left_in_proportion_to_the_pages() -> None:
    """Nobody knows where they lie; half the pages hide half of them."""
    progress = SweepProgress(Sweep(0, HOUR, 10, 50.0, 10, sure=True), 1_000)
    progress.saw(known=4, unknown=20, seen=5, page_size=1_000)
    assert (progress.pages_left, progress.sids_left) == (5, 6 + 20)


def test_what_has_been_found_is_not_left() -> None:
    """A sweep ends with the last SID, even if those of unknown age all lay on its first page."""
    progress = SweepProgress(Sweep(0, HOUR, 20, 300.0, 0, sure=True, unknown=300), 1_000)
    progress.saw(known=0, unknown=299, seen=1, page_size=1_000)
    assert (progress.sids_left, progress.worth_going_on) == (1, False)
    progress.saw(known=0, unknown=1, seen=2, page_size=1_000)
    assert progress.sids_left == 0


@pytest.mark.parametrize(
    ("pages", "seen", "larger", "expected"),
    [(240, 20, 500, True), (80, 20, 500, True), (79, 20, 500, False), (240, 100, 500, False),
     (80, 40, 1_000, False), (80, 20, 1_000, True)],
)  # fmt: skip
def test_larger_pages_must_gain_what_they_may_lose(
    pages: int, seen: int, larger: int, *, expected: bool
) -> None:
    """A window starts again in larger pages where that saves as many as were read of it."""
    progress = SweepProgress(Sweep(0, HOUR, pages, 60_000.0, 60_000, sure=True), 250)
    progress.pages_left = pages - seen
    assert progress.outgrown(seen, 250, larger) is expected


def test_a_sweep_is_counted_in_the_pages_that_it_gets() -> None:
    """Where pages shrink to a tenth, there are ten times as many, and as many left."""
    sweep = Sweep(0, HOUR, 10, 12.0, 12, sure=True)
    assert sweep.resized(1_000, 1_000) == sweep
    small = sweep.resized(1_000, 100)
    assert pages_left(small, seen=10, known=1, unknown=0, last=0) == 90


def test_the_pages_left_follow_what_was_seen() -> None:
    """A sure count holds; an unsure one gives way to how thinly the SIDs are sown."""
    sure = Sweep(0, HOUR, 10, 40.0, 40, sure=True)
    unsure = Sweep(0, HOUR, 10, 40.0, 40, sure=False)
    mixed = Sweep(0, HOUR, 10, 50.0, 10, sure=False)
    assert pages_left(sure, seen=4, known=30, unknown=0, last=9) == 6
    assert pages_left(unsure, seen=4, known=0, unknown=0, last=0) == 6
    assert pages_left(unsure, seen=4, known=30, unknown=0, last=1) == pytest.approx(4 / 3)
    assert pages_left(unsure, seen=10, known=10, unknown=0, last=1) == 30
    assert pages_left(unsure, seen=10, known=10, unknown=0, last=3) == 10
    assert pages_left(unsure, seen=10, known=40, unknown=0, last=1) == 1
    # Thousands of unknown age, none on the first pages: they lie elsewhere, not 28,000 pages on.
    uneven = Sweep(0, NOW, pages=13, finds=7_000, known=0, sure=False)
    assert pages_left(uneven, seen=2, known=0, unknown=0, last=0) == 37
    assert pages_left(mixed, seen=5, known=10, unknown=8, last=1) == 20


@pytest.mark.parametrize(
    ("requests", "allowance", "expected"),
    [(0, 100, 0), (100, 100, 0), (101, 100, 60), (1_000, 100, 540), (10, 0, 0)],
)
def test_time_at_the_allowance(requests: int, allowance: int, expected: float) -> None:
    """The first fill goes at once, each further one waits for a window."""
    assert seconds(requests, allowance, 60_000) == expected


@pytest.mark.parametrize(
    ("requests", "expected"), [(0, 0), (1, 0), (2, 10), (3, 45), (4, 60), (5, 70), (7, 120)]
)
def test_time_counts_what_is_used_up(requests: int, expected: float) -> None:
    """Of three slots one is free, the others later; each is free again a window after its use."""
    assert seconds(requests, 3, 60_000, [45_000, 10_000]) == expected


def test_the_page_size_falls_at_once_and_rises_slowly() -> None:
    """1,000, 500, 250, 100 after failures, one step up after twenty good pages."""
    down = [next_page_size(size, failed=True, good_in_a_row=0) for size in (1000, 500, 250, 100)]
    up = [next_page_size(size, failed=False, good_in_a_row=20) for size in (100, 250, 500, 1000)]
    assert (down, up) == ([500, 250, 100, 100], [250, 500, 1000, 1000])
    assert next_page_size(250, failed=False, good_in_a_row=19) == 250
    assert next_page_size(250, failed=False, good_in_a_row=20, largest=300) == 300
    assert next_page_size(1000, failed=False, good_in_a_row=0, largest=300) == 300


def test_smaller_counts_are_taken_out_of_larger_ones() -> None:
    """An hour counted inside a day leaves the rest of the day's count to the other hours."""
    day, hour = Bucket(0, 24 * HOUR, 24_000), Bucket(5 * HOUR, 6 * HOUR, 1_000)
    guess = estimate([], [], [day, hour])
    assert sum(guess.attempts) == pytest.approx(24_000)
    assert guess.attempts[guess.cell(5 * HOUR)] == pytest.approx(1_000)


def test_an_exact_count_corrects_the_database_elsewhere() -> None:
    """A database that was wrong by 3 where it could be checked is taken to be so everywhere."""
    believed = [Bucket(0, HOUR, 3_000), Bucket(HOUR, 2 * HOUR, 6_000)]
    guess = estimate([], believed, [Bucket(0, HOUR, 9_000)])
    assert guess.attempts == pytest.approx((9_000, 18_000), rel=0.01)


_counts = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 9_000), st.booleans()), min_size=1, max_size=40
)


def _made(cells: list[tuple[int, int, bool]]) -> tuple[tuple[Bucket, ...], Density]:
    known = tuple(Bucket(i * HOUR, (i + 1) * HOUR, k) for i, (k, _, _) in enumerate(cells) if k)
    rest = [(Bucket(i * HOUR, (i + 1) * HOUR, a), sure) for i, (_, a, sure) in enumerate(cells)]
    return known, Density(
        tuple(bucket for bucket, sure in rest if not sure),
        tuple(bucket for bucket, sure in rest if sure),
    )


@settings(max_examples=scaled(150))
@given(
    cells=_counts,
    unknown=st.integers(0, 5_000),
    expired=st.integers(0, 50),
    size=st.integers(1, 1_000),
    behind=st.integers(-10, 10),
)
def test_every_plan_holds_together(
    cells: list[tuple[int, int, bool]], unknown: int, expired: int, size: int, behind: int
) -> None:
    """Windows are sorted, disjoint and within bounds, the sums agree, and singles bound them."""
    known, density = _made(cells)
    density = Density(density.believed, density.counted, asked=max(behind, 0), behind=behind)
    end = len(cells) * HOUR
    waiting = Waiting(known, unknown, 0, end, expired)
    result = plan(waiting, density, page_size=size, now=end)
    total = sum(bucket.count for bucket in known) + unknown
    assert all(0 <= s.start < s.end <= end and s.pages >= 1 for s in result.sweeps)
    assert all(a.end <= b.start for a, b in pairwise(result.sweeps))
    listed = sum(s.pages for s in result.sweeps)
    assert result.requests == density.asked + len(result.ask) + listed + result.fetches
    assert expired <= result.fetches <= expired + total
    assert listed + result.fetches <= total + expired + 1
    assert result.fetch_only == total + expired


_moments = st.integers(0, 20)


@settings(max_examples=scaled(150))
@given(
    spans=st.lists(st.tuples(_moments, _moments, st.integers(0, 50_000)), max_size=6),
    known=st.lists(st.integers(0, 300), max_size=8),
    unknown=st.tuples(st.integers(0, 900), _moments, _moments),
    swept=st.lists(st.tuples(_moments, _moments), max_size=2),
    now=_moments,
)
def test_no_knowledge_upsets_the_planner(
    spans: list[tuple[int, int, int]],
    known: list[int],
    unknown: tuple[int, int, int],
    swept: list[tuple[int, int]],
    now: int,
) -> None:
    """Counts that overlap, contradict or are upside down give a plan, and a question a window."""
    waiting = Waiting(
        tuple(Bucket(2 * i, 2 * i + 1, count) for i, count in enumerate(known)),
        *unknown,
        swept=tuple(Window(start, end) for start, end in swept),
    )
    density = Density(counted=tuple(Bucket(*span) for span in spans))
    result = plan(waiting, density, page_size=100, now=now)
    assert all(ask.start < ask.end for ask in result.ask)
    assert 0 <= result.fetches <= result.fetch_only


@settings(max_examples=scaled(100))
@given(cells=_counts, size=st.integers(1, 1_000), at=st.integers(0, 39))
def test_more_waiting_never_costs_less(
    cells: list[tuple[int, int, bool]], size: int, at: int
) -> None:
    """With the counts given, one more SID adds nothing or one request."""
    weights = [float(k) for k, _, _ in cells]
    sums = [0.0]
    for k, a, _ in cells:
        sums.append(sums[-1] + max(k, a) + 1)
    before = cover(weights, sums, size).cost
    weights[at % len(weights)] += 1
    assert before <= cover(weights, sums, size).cost <= before + 1


@settings(max_examples=scaled(100))
@given(cells=_counts, size=st.integers(1, 1_000))
def test_the_cover_is_the_best_there_is(cells: list[tuple[int, int, bool]], size: int) -> None:
    """An independent search over all windows finds none cheaper."""
    attempts = tuple(max(k, a, 1) for k, a, _ in cells)
    known = tuple(k for k, _, _ in cells)
    sums = [0.0]
    for value in attempts:
        sums.append(sums[-1] + value)
    expected = best(World(HOUR, attempts, known, (0,) * len(cells)), size)
    assert cover(known, sums, size).cost == expected
