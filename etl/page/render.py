"""Write the page: template, style, library, program and data in one file.

The data is never part of the markup. It is JSON in a data block, with HTML's characters escaped. The
program shows it as text only. A Content-Security-Policy allows only the scripts in the file, by their
hashes. It allows no request. With `require-trusted-types-for`, the page itself cannot turn text into
markup either.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import IO, Any, Final

from etl import __version__
from etl.page.data import MOST_NAMES, PageData
from etl.reports import find
from etl.reports.error_codes import MEANINGS

SCRIPTS: Final = (
    "decode.js",
    "facts.js",
    "words.js",
    "table.js",
    "charts.js",
    "views.js",
    "pick.js",
    "app.js",
)
"""The files of the program, in order, all in one scope."""

_REPORTS: Final = (
    "conversion-daily",
    "verification-success-daily",
    "cost-daily",
    "cost-per-conversion",
    "carrier-performance",
    "delivery-errors",
    "retry-funnel",
    "freshness",
)
_ESCAPES: Final = {
    ord(character): f"\\u{ord(character):04x}" for character in ("<", ">", "&", "\u2028", "\u2029")
}


def write(page: PageData, stream: IO[bytes]) -> int:
    """Write the page as UTF-8, and give its size in bytes."""
    return stream.write(html(facts(page)).encode())


def facts(page: PageData) -> dict[str, Any]:
    """Give the page's data, ready for JSON."""
    asked = page.question
    return {
        "madeAt": _iso(page.made_at),
        "asOf": asked.as_of and _iso(asked.as_of.at),
        "version": __version__,
        "firstDay": page.first_day,
        "lastDay": page.last_day,
        "asked": {
            "since": _iso(asked.since),
            "until": _iso(asked.until),
            "service": asked.services,
            "channel": asked.channels,
            "country": asked.countries,
        },
        "names": {kind: names.as_json() for kind, names in page.names.items()},
        "most": dict(MOST_NAMES),
        "meanings": {
            code: MEANINGS[code] for code in page.names["error"].names if code in MEANINGS
        },
        "grids": page.grids,
        "queue": page.queue,
        "freshness": [
            {name: _iso(cell) if isinstance(cell, datetime) else cell for name, cell in row.items()}
            for row in page.freshness
        ],
        "definitions": {name: definition(name) for name in _REPORTS},
    }


def html(known: Mapping[str, Any]) -> str:
    """Put the page together from its parts and its data."""
    library = _library()
    program = '(() => {\n"use strict";\n' + "\n".join(map(_part, SCRIPTS)) + "\n})();\n"
    style = _part("style.css")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(library)} {_hash(program)}",
            f"style-src {_hash(style)}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    parts = {
        "policy": policy,
        "style": style,
        "data": _json(known),
        "library": library,
        "program": program,
    }
    # Cut the template at its marks first, so that marks in the data do nothing.
    first, *others = _part("template.html").split("{{")
    found = [first]
    for other in others:
        name, rest = other.split("}}", 1)
        found += [parts[name], rest]
    return "".join(found)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).translate(
        _ESCAPES
    )


def _part(name: str) -> str:
    return (files("etl.page") / name).read_text(encoding="utf-8")


def _library() -> str:
    """Give the chart library without its source map, which browsers would fetch."""
    lines = _part("vendor/chart.umd.min.js").splitlines()
    return "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL="))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def definition(name: str) -> dict[str, Any]:
    """Give a report's own description and columns."""
    report = find(name)
    assert report is not None  # noqa: S101 - for the type checker
    return {
        "view": report.view,
        "sentence": report.sentence,
        "counts": report.counts,
        "columns": [[column.name, column.meaning] for column in report.columns],
    }


def _iso(at: datetime | float | None) -> str | None:
    if at is None:
        return None
    moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
