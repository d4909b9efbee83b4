"""Synthesize the aggregates of a busy account's year: no rows, only what the reports would say."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final

from etl.page import data
from etl.page.grid import Fold, Grid, ladder
from etl.page.pack import packed
from etl.page.render import definition

FIRST: Final = 20_420
DAYS: Final = 365
DAILY: Final = 200_000
SERVICES: Final = 4
CHANNELS: Final = (0.72, 0.1, 0.1, 0.05, 0.03)
EMAIL: Final = 3
COUNTRIES: Final = 60
CARRIERS: Final = 300
ERRORS: Final = 25
NOT_FINAL_DAYS: Final = 3
CARRIER_SHARES: Final = (0.45, 0.25, 0.15, 0.1, 0.05)
Where = tuple[int, int, int, int]


def shares(count: int) -> list[float]:
    """Give the shares of a few large and many small ones."""
    raw = [1 / (place + 2) for place in range(count)]
    return [share / sum(raw) for share in raw]


def slices() -> list[tuple[tuple[int, int, int], float]]:
    """Give each service, channel and country with its share of the attempts."""
    return [
        ((service, channel, country), by_service * by_channel * by_country)
        for service, by_service in enumerate(shares(SERVICES))
        for channel, by_channel in enumerate(CHANNELS)
        for country, by_country in (
            # An address has no country.
            [(COUNTRIES, 1.0)] if channel == EMAIL else enumerate(shares(COUNTRIES))
        )
    ]


def cells(random: Random) -> Iterator[tuple[int, tuple[int, int, int], int]]:
    """Give (day, slice, attempts), a week's rhythm and chance included."""
    for day in range(FIRST, FIRST + DAYS):
        for keys, share in slices():
            mean = DAILY * share * (1.1 if day % 7 < 5 else 0.75)
            if attempts := max(0, round(random.gauss(mean, mean**0.5 + 0.1 * mean))):
                yield day, keys, attempts


def _thinned(random: Random, number: int, share: float) -> int:
    mean = number * share
    drawn = round(random.gauss(mean, (mean * (1 - share)) ** 0.5))
    return min(number, max(0, drawn))


def busy(seed: int = 1) -> dict[str, Mapping[str, Any]]:
    """Give the packed grids of the year."""
    random = Random(seed)
    calendars = ladder(FIRST, FIRST + DAYS - 1)

    def small(name: str, measures: Sequence[str], fold: Fold) -> Grid:
        keys = (name, *data.MAIN_KEYS[1:])
        return Grid(keys, measures, calendars=calendars, limit=data.SMALL_CELLS, fold=fold)

    main = Grid(data.MAIN_KEYS, data.MAIN_MEASURES, calendars=calendars, limit=data.MAIN_CELLS)
    carriers = small("carrier", data.CARRIER_MEASURES, Fold(CARRIERS, into=CARRIERS))
    errors = small("error", data.ERROR_MEASURES, Fold(ERRORS, into=ERRORS))
    funnel = small("step", data.STEP_MEASURES, Fold(data.LAST_STEP))
    success = Grid(
        data.SLICE_KEYS, data.SUCCESS_MEASURES, calendars=calendars, limit=data.SMALL_CELLS
    )
    for day, keys, attempts in cells(random):
        rate = 0.6 + 0.2 * ((keys[2] * 7 + keys[0]) % 10) / 10
        late = attempts if day >= FIRST + DAYS - NOT_FINAL_DAYS else 0
        main.add(day, (0, *keys), _slice(random, keys, attempts, late, rate))
        success.add(day, keys, _success(random, attempts, late, rate))
        # These grids fold old days into weeks: a week at a time is as good, and quicker.
        old = day < FIRST + DAYS - 42
        if old and day % 7:
            continue
        many = attempts * 7 if old else attempts
        _carriers(random, carriers, (day, *keys), many, rate)
        _errors(random, errors, (day, *keys), many)
        _funnel(random, funnel, (day, *keys), many, rate)
    return {
        "main": packed(main, most=data.MAIN_SIZE, parts=data.PARTS, amounts=data.AMOUNTS),
        "success": packed(success, most=data.SMALL_SIZES["success"], parts=data.SUCCESS_PARTS),
        **{
            name: packed(grid, most=data.SMALL_SIZES[grid.keys[0]], parts=data.PARTS)
            for name, grid in (("carriers", carriers), ("errors", errors), ("funnel", funnel))
        },
    }


def _slice(
    random: Random, keys: tuple[int, int, int], attempts: int, late: int, rate: float
) -> tuple[int, ...]:
    """Give a slice's sums: five carriers with prices of their own, and one fee."""
    price = wasted = converted = rest = 0
    for share in CARRIER_SHARES:
        some = min(attempts - rest, _thinned(random, attempts, share))
        rest += some
        won = _thinned(random, some, rate)
        each = 4000 + 137 * (keys[2] * 11 % 97) + int(5000 * share)
        converted += won
        price += each * some
        wasted += each * (some - won)
    amounts = (price, wasted, 50_000 * converted)
    money = (number for amount in amounts for number in (amount % 10**6, amount // 10**6))
    return (attempts, converted, late, attempts, converted, converted, *money)


def _success(random: Random, attempts: int, late: int, rate: float) -> tuple[int, ...]:
    """Give the verifications of a slice: a quarter of the attempts is not the first."""
    begun = _thinned(random, attempts, 0.75)
    retried = _thinned(random, begun, 0.2)
    return (attempts, begun, _thinned(random, begun, rate), retried, min(late, begun))


def _carriers(random: Random, grid: Grid, where: Where, attempts: int, rate: float) -> None:
    day, *keys = where
    for place, share in enumerate(CARRIER_SHARES if keys[1] < EMAIL else ()):
        if some := _thinned(random, attempts, share):
            delivered = _thinned(random, some, 0.93)
            name = keys[2] * len(CARRIER_SHARES) + place
            values = (some, _thinned(random, some, rate), delivered, some - delivered, 0)
            grid.add(day, (name, *keys), values)


def _errors(random: Random, grid: Grid, where: Where, attempts: int) -> None:
    day, *keys = where
    # Each country has errors of its own, a few of them.
    for place, share in enumerate((0.02, 0.01, 0.006, 0.004)):
        if some := _thinned(random, attempts, share):
            grid.add(day, ((keys[2] * 3 + place) % ERRORS, *keys), (some, some, 0, 0))


def _funnel(random: Random, grid: Grid, where: Where, attempts: int, rate: float) -> None:
    day, *keys = where
    for step in range(1, data.LAST_STEP + 1):
        if here := _thinned(random, attempts, 0.8 if step == 1 else 0.75 / 4**step):
            won = _thinned(random, here, rate)
            grid.add(day, (step, *keys), (here, won, (here - won) // 2, 0))


def known(grids: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Give all that the page is made from, with names for the codes."""
    names = {
        "service": [f"VA{number:032x}" for number in range(SERVICES)],
        "channel": ["sms", "whatsapp", "call", "email", "rbm"],
        "country": [*(a + b for a in "ABCDEF" for b in "ABCDEFGHIJ"), None],
        "currency": ["USD"],
        "carrier": [f"Carrier of a usual name {number}" for number in range(CARRIERS)],
        "error": [str(30_001 + number) for number in range(ERRORS)],
    }
    definitions = ("conversion-daily", "cost-daily", "cost-per-conversion", "carrier-performance",
                   "delivery-errors", "retry-funnel", "verification-success-daily",
                   "freshness")  # fmt: skip
    return {
        "madeAt": "2026-11-23T00:00:00Z", "version": "0",
        "firstDay": FIRST, "lastDay": FIRST + DAYS - 1, "asked": {},
        "names": {kind: {"names": found, "other": False} for kind, found in names.items()},
        "meanings": {}, "grids": grids, "queue": [], "freshness": [],
        "definitions": {name: definition(name) for name in definitions},
    }  # fmt: skip
