"""The doctor's table, as people see it: what is wrong stands last, next to the prompt, and what is to be typed is never
broken over lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aasm_py.streams import clean, terminal_width
from agent_assembly.diagnosis import COLUMNS, Finding, aligned

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
_ORDER = ("skip", "ok", "warn", "fail")
# Narrower, a column of text is a column of syllables.
_LEAST_FOUND = 40


def diagnosis(findings: Sequence[Finding], stream: IO[str] | None = None) -> None:
    """Print the findings, ordered by how bad they are, to `stream` (standard output).

    On a terminal that is too narrow for four columns, what is to be done stands below what was found. In a pipe each
    row is one line.
    """
    rows = sorted(findings, key=lambda finding: _ORDER.index(finding.status))
    console = _console(stream)
    cells = [tuple(map(clean, finding.row())) for finding in rows]
    if not console.is_terminal:
        _write(console, aligned(cells))
        return
    names, remedies = (max((len(row[column]) for row in cells), default=0) for column in (0, 3))
    left = console.width - max(names, len(COLUMNS[0])) - len(COLUMNS[1]) - 3 * 2
    if left - remedies >= _LEAST_FOUND:
        console.print(_table(rows, COLUMNS))
        return
    _stacked(console, rows, max(names, len(COLUMNS[0])))


def summary(findings: Sequence[Finding]) -> None:
    """Print how many rows there are of each status."""
    counts = {status: sum(finding.status == status for finding in findings) for status in reversed(_ORDER)}
    text = Text(", ").join(
        Text(f"{count} {status}", style=_STYLES[status]) for status, count in counts.items() if count
    )
    _console(None).print(text)


def _table(rows: Sequence[Finding], columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column != COLUMNS[2], overflow="fold")
    for finding in rows:
        table.add_row(*_cells(finding)[: len(columns)])
    return table


def _cells(finding: Finding) -> tuple[Text, Text, Text, Text]:
    check, status, found, remedy = map(clean, finding.row())
    quiet = "dim" if status == "skip" else ""
    return (
        Text(check, style=quiet or "bold"),
        Text(status, style=_STYLES[finding.status]),
        Text(found, style=quiet),
        Text(remedy, style=quiet),
    )


def _stacked(console: Console, rows: Sequence[Finding], width: int) -> None:
    indent = width + len(COLUMNS[1]) + 2 * 2
    if console.width - indent < _LEAST_FOUND:
        indent = 4
    for finding in rows:
        check, status, found, remedy = _cells(finding)
        if indent == 4:
            console.print(Text("  ").join([check, status]))
            _indented(console, found, indent)
        else:
            check.pad_right(width - len(check))
            status.pad_right(len(COLUMNS[1]) - len(status))
            lines = found.wrap(console, console.width - indent) or [Text()]
            console.print(Text("  ").join([check, status, lines[0]]))
            for line in lines[1:]:
                console.print(Text(" " * indent).append_text(line))
        if remedy:
            console.print(Text(" " * indent).append("-> ", style="bold").append_text(remedy), soft_wrap=True)


def _indented(console: Console, text: Text, indent: int) -> None:
    for line in text.wrap(console, max(20, console.width - indent)):
        console.print(Text(" " * indent).append_text(line))


def _write(console: Console, lines: Sequence[str]) -> None:
    encoding = getattr(console.file, "encoding", None) or "utf-8"
    text = "\n".join(lines) + "\n"
    console.file.write(text.encode(encoding, "backslashreplace").decode(encoding))
    console.file.flush()


def _console(stream: IO[str] | None) -> Console:
    file = stream or sys.stdout
    return Console(file=file, width=terminal_width(file), highlight=False, markup=False, emoji=False)
