"""Write the page: template, style, library, program and data in one file.

Nothing of the data is ever part of the markup. It is JSON in a data block, with every character
that HTML could read escaped; the program shows it as text only. A Content-Security-Policy lets
nothing run but what is here, by its hash, lets nothing be fetched, and forbids the page itself to
turn text into markup (`require-trusted-types-for`).
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
"""The program, in order; one scope around all of them."""

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
    """Give all that the page knows, as JSON can hold it."""
    asked = page.question
    return {
        "madeAt": _iso(page.made_at),
        "asOf": asked.as_of and _iso(asked.as_of.moment),
        "version": __version__,
        "firstDay": page.first_day,
        "lastDay": page.last_day,
        "asked": {
            "since": None
            if asked.since is None
            else _iso(datetime.fromtimestamp(asked.since, UTC)),
            "until": None
            if asked.until is None
            else _iso(datetime.fromtimestamp(asked.until, UTC)),
            "service": asked.services,
            "channel": asked.channels,
            "country": asked.countries,
        },
        "names": {kind: names.as_json() for kind, names in page.names.items()},
        "most": dict(MOST_NAMES),
        "meanings": {
            code: MEANINGS[code] for code in page.names["error"].names if code in MEANINGS
        },
        "cubes": page.cubes,
        "queue": page.queue,
        "freshness": [
            {name: _iso(cell) if isinstance(cell, datetime) else cell for name, cell in row.items()}
            for row in page.freshness
        ],
        "definitions": {name: definition(name) for name in _REPORTS},
    }


def html(known: Mapping[str, Any]) -> str:
    """Put the page together from its parts and what it knows."""
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
    # The template is cut at its marks: what is put in is not looked at again.
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
    """Give the chart library without the line that names a source map: browsers would ask for it."""
    lines = _part("vendor/chart.umd.min.js").splitlines()
    return "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL="))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def definition(name: str) -> dict[str, Any]:
    """Give what a report counts, in the words of its own documentation."""
    report = find(name)
    assert report is not None  # noqa: S101 - for the type checker
    return {
        "view": report.view,
        "sentence": report.sentence,
        "counts": report.counts,
        "columns": [[column.name, column.meaning] for column in report.columns],
    }


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
