"""Read an export back as docs/export.md says, and hold it to the database."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest
from pyarrow import dataset, parquet
from sqlalchemy import Engine

from etl.export import UNDATED, ExportOptions, export
from tests.support.export_world import expected
from tests.support.harness import ROOT

DOCS = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
SQL = re.findall(r"(?ms)^```sql\n(.*?)^```$", DOCS)


@pytest.fixture
def lake(
    filled: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Export as docs/export.md says, and open DuckDB beside it with the recipe's view."""
    export(filled, ExportOptions(tmp_path / "attempts"))
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as connection:
        connection.execute(SQL[0])
        yield connection


def test_the_recipe_runs(lake: duckdb.DuckDBPyConnection) -> None:
    """Every SQL block of docs/export.md runs in DuckDB and finds something."""
    assert len(SQL) >= 5
    for statement in SQL[1:]:
        assert lake.execute(statement).fetchall(), statement


def test_the_recipe_counts_as_the_database_does(
    filled: Engine, lake: duckdb.DuckDBPyConnection
) -> None:
    """Counts and sums that DuckDB reads back are those of the tables, to the last decimal."""
    held = expected(filled, destination=False)
    conversion: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    cost: dict[Any, list[Any]] = defaultdict(lambda: [0, 0, None, None])
    for day, attempts_of_day in held.items():
        when = None if day == UNDATED else date.fromisoformat(day)
        for row in attempts_of_day:
            counted = conversion[when, row["service_sid"], row["channel"], row["country"]]
            for place, one in enumerate(
                (True, row["converted"], not row["converted"], not row["final"])
            ):
                counted[place] += one
            spent = cost[when, row["price_currency"]]
            spent[0] += 1
            if row["price_amount"] is not None:
                spent[1] += 1
                spent[2] = (spent[2] or 0) + row["price_amount"]
                if not row["converted"]:
                    spent[3] = (spent[3] or 0) + row["price_amount"]
    by_slice = {tuple(row[:4]): list(row[4:]) for row in lake.execute(SQL[1]).fetchall()}
    by_currency = {tuple(row[:2]): list(row[2:]) for row in lake.execute(SQL[2]).fetchall()}
    assert by_slice == dict(conversion)
    assert by_currency == dict(cost)


def _duckdb(folder: str) -> tuple[int, set[str]]:
    files = f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"
    days = duckdb.execute(f"SELECT day, COUNT(*) FROM {files} GROUP BY day").fetchall()
    assert {type(day) for day, _ in days} == {date}
    return sum(count for _, count in days), {str(day) for day, _ in days}


def _pandas(folder: str) -> tuple[int, set[str]]:
    found = pd.read_parquet(folder)
    return len(found), set(found["day"])


def _polars(folder: str) -> tuple[int, set[str]]:
    found = pl.scan_parquet(folder).collect()
    assert found["day"].dtype == pl.Date
    return found.height, set(found["day"].cast(pl.String))


def _pyarrow(folder: str) -> tuple[int, set[str]]:
    found = dataset.dataset(folder, partitioning="hive").to_table()
    return found.num_rows, set(found["day"].to_pylist())


def _by_convention(folder: str) -> tuple[int, set[str]]:
    """Read names as Spark and ClickHouse do: what begins with `_` or `.` is not there."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert [path for path in files if path.name[0] in "_." or path.suffix != ".parquet"] == []
    days = {path.parent.name.removeprefix("day=") for path in files}
    assert [date.fromisoformat(day) for day in days]
    return sum(parquet.read_metadata(path).num_rows for path in files), days


@pytest.mark.parametrize("read", [_duckdb, _pandas, _polars, _pyarrow, _by_convention])
def test_readers_take_the_folder_as_it_is(
    filled: Engine, tmp_path: Path, read: Callable[[str], tuple[int, set[str]]]
) -> None:
    """Each reader finds every row, and the undated ones under a date of their own."""
    export(filled, ExportOptions(tmp_path / "attempts"))
    held = expected(filled, destination=False)
    days = {"1970-01-01" if day == UNDATED else day for day in held}
    assert UNDATED in held
    assert read(str(tmp_path / "attempts")) == (sum(map(len, held.values())), days)
