"""A page of help, as `aasm-run` and `aasm-py` print it: what it is for, examples to type, then the options.

Plain ASCII text without colour, so that it reads the same on every terminal, in a pipe and in a file.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

WIDEST = 100
STUCK = "Stuck? Begin with: aasm-py doctor"

_LEFT_LIMIT = 34
# Where less than this is left for the text beside a name, it goes below.
_TEXT_LEAST = 30


class Section(NamedTuple):
    """Names with their explanations, under a title."""

    title: str
    rows: Sequence[tuple[str, str]]


def page(
    usage: str,
    purpose: str,
    examples: Sequence[tuple[str, str]],
    sections: Iterable[Section],
    closing: Sequence[str],
    width: int,
) -> str:
    """Return the page for a terminal of `width` columns, with a newline at its end.

    Examples are never broken, since they are there to be copied; everything else fits the width.
    """
    width = min(width, WIDEST)
    blocks = [_filled(f"Usage: {usage}", width, rest="  ")]
    blocks += [_filled(paragraph, width) for paragraph in purpose.split("\n\n") if paragraph.strip()]
    if examples:
        blocks.append(_examples(examples, width))
    blocks += [_section(section, width) for section in sections if section.rows]
    blocks += [_filled(paragraph, width) for paragraph in closing]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def option_row(names: Sequence[str], metavar: str, text: str, default: str = "") -> tuple[str, str]:
    """Return the row of an option: `-q, --quiet`, or `    --agent ID`, so that the long names stand in one column."""
    short = ", ".join(name for name in names if not name.startswith("--"))
    long = ", ".join(name for name in names if name.startswith("--"))
    left = f"{short}, {long}" if short and long else short or f"    {long}"
    return f"{left} {metavar}".rstrip(), f"{text} [default: {default}]" if default else text


def _examples(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Each with its text on one line, or, where one of them does not fit, all with it on the next."""
    column = max(len(line) for line, _ in rows) + 4
    if all(column + len(text) <= width for _, text in rows):
        return ["Examples:", *(f"{f'  {line}'.ljust(column)}{text}".rstrip() for line, text in rows)]
    lines = ["Examples:"]
    for line, text in rows:
        lines += [f"  {line}", *_filled(text, width, " " * 6)]
    return lines


def _section(section: Section, width: int) -> list[str]:
    fitting = [len(left) for left, _ in section.rows if len(left) <= _LEFT_LIMIT]
    column = max(fitting, default=0) + 4
    lines = [f"{section.title}:"]
    for left, text in section.rows:
        if width - column < _TEXT_LEAST:
            # Without the room for a second column, options lose the indentation that aligns them, too.
            lines += [f"  {left.strip()}", *_filled(text, width, " " * 6)]
        elif len(left) > _LEFT_LIMIT:
            lines += [f"  {left}", *_filled(text, width, " " * column)]
        else:
            lines += _filled(text, width, f"  {left}".ljust(column), " " * column) or [f"  {left}"]
    return lines


def _filled(text: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    """Return `text` as lines of at most `width`; longer words are not broken."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
