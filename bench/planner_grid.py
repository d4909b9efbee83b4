"""Print how many requests the planner's decisions cost beside the best possible and single fetches.

python -m bench.planner_grid [--share 29] [--all]: every 29th situation of the grid (1: all, hours).
The worst of each kind of knowledge are shown. Exits with 1 if a bound is missed.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.planner_world import KNOWLEDGE, Situation, best, bound, grid, spent

_Row = tuple[Situation, float, int]


def main() -> int:
    """Run the grid, print it, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=int, default=29, help="take every n-th situation")
    parser.add_argument("--all", action="store_true", help="print each situation")
    options = parser.parse_args()
    started = time.monotonic()
    rows = [(case, best(case.world), spent(case)) for case in grid(options.share)]
    missed = [row for row in rows if row[2] > bound(row[0], row[1])]
    strict = [row for row in rows if row[2] > 1.15 * row[1] + 2]
    for kind in KNOWLEDGE:
        _print(kind, [row for row in rows if row[0].group == kind], everything=options.all)
    print(
        f"\n{len(rows)} situations in {time.monotonic() - started:.0f} s; "
        f"{len(strict)} above 1.15 x the best + 2, {len(missed)} above their bound"
    )
    for row in missed:
        print("MISSED", _line(row))
    return 1 if missed else 0


def _print(kind: str, rows: list[_Row], *, everything: bool) -> None:
    worst = sorted(rows, key=_ratio, reverse=True)
    over = max((ours - case.world.singles for case, _, ours in rows), default=0)
    kept = sum(ours <= 1.15 * least + 2 for _, least, ours in rows)
    print(f"\n{kind}: {len(rows)} situations, {kept} within 1.15 x the best + 2,")
    print(f"  worst (ours - 2) / best {_ratio(worst[0]):.2f}, most above single fetches {over:+d}")
    print("   best     ours  ratio  singles  situation")
    for row in worst if everything else worst[:3]:
        print(_line(row))


def _ratio(row: _Row) -> float:
    return (row[2] - 2) / row[1]


def _line(row: _Row) -> str:
    case, least, ours = row
    return f"{least:8.1f} {ours:7d} {_ratio(row):6.2f} {case.world.singles:8d}  {case.name}"


if __name__ == "__main__":
    sys.exit(main())
