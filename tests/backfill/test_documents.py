"""Read JSON in the shapes that people have at hand."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.queue_rows import sid
from tests.support.sid_files import Entry, entries, parse

WHEN = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


def _attempt(number: int, **more: object) -> dict[str, object]:
    return {"sid": sid(number), "date_created": "2026-11-20T10:00:00Z", **more}


SHAPES: dict[str, object] = {
    "array": [_attempt(1), _attempt(2)],
    "array of SIDs": [{"attempt_sid": sid(1), "date_created": WHEN.isoformat()}, _attempt(2)],
    "page": {"attempts": [_attempt(1), _attempt(2)], "meta": {"page": 0, "key": "attempts"}},
    "events": [
        {"specversion": "1.0", "id": "EZ1", "data": {"attempt_sid": sid(n), "dateCreated": "2026-11-20T10:00:00Z"}}
        for n in (1, 2)
    ],
    "camel": [{"attemptSid": sid(n), "dateCreated": "2026-11-20T10:00:00Z"} for n in (1, 2)],
    "verification": {
        "sid": f"VE{1:032x}",
        "sendCodeAttempts": [{"attemptSid": sid(n), "time": "2026-11-20T10:00:00Z"} for n in (1, 2)],
    },
}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 2], ids=["compact", "pretty"])
@pytest.mark.parametrize("shape", SHAPES)
def test_json_in_the_shapes_there_are(tmp_path: Path, shape: str, indent: int | None) -> None:
    """Arrays, pages, events and camel case are read, on one line or on many."""
    parse(tmp_path, json.dumps(SHAPES[shape], indent=indent))
    found = [item for item in entries(tmp_path / "file") if isinstance(item, Entry)]
    assert [(item.sid, item.date_created) for item in found] == [(sid(1), WHEN), (sid(2), WHEN)]
    assert len(found) == len(entries(tmp_path / "file"))


def test_json_values_on_many_lines_are_counted_by_line(tmp_path: Path) -> None:
    """A value has the line where it begins; a bad one costs its first line alone."""
    pretty = json.dumps({"sid": sid(1), "note": "{["}, indent=1)
    data = f'{pretty}\n# so\n{{"sid": \n{json.dumps([sid(2), "x"], indent=1)}\n{pretty}'
    assert parse(tmp_path, data) == [(1, sid(1)), (6, "!"), (8, sid(2)), (9, "!"), (11, sid(1))]


def test_a_long_array_is_read_item_by_item(tmp_path: Path) -> None:
    """An array of many megabytes on one line is read as well as one on many."""
    many = 60_000
    for indent in (None, 1):
        parse(tmp_path, json.dumps([_attempt(n, pad="x" * 50) for n in range(many)], indent=indent))
        found = entries(tmp_path / "file")
        assert [item.sid for item in found if isinstance(item, Entry)] == [*map(sid, range(many))]


def test_a_value_without_end_is_one_bad_line(tmp_path: Path) -> None:
    """A brace that is never closed does not swallow the file."""
    lines = [f'{{"sid": "{sid(n)}"}}' for n in range(300_000)]
    found = parse(tmp_path, "\n".join(['{"sid": [', *lines]))
    assert found == [(1, "!"), *((n + 2, sid(n)) for n in range(300_000))]
