"""What the documentation's Markdown holds: code blocks, headings, links, and transcripts of a terminal.

Marks in the line before a block say more about it: `<!-- run -->` a transcript that is typed and compared,
`<!-- refused -->` a policy that must not load. A block with a title is a file of that name.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
PROGRAMS = ("aasm-run", "aasm-py", "aasm")

_FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\s*$")
_HEADING = re.compile(r"^(#{1,6}) (.+?)\s*$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^()\s]+)\)")
_INLINE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
# What differs from one run to the next: anything for the mark of omission, ids, numbers, and the machine's name.
_VARIABLE = re.compile(r"(…|\b[0-9a-f]{8,}\b|\d+|\blaptop\b)")


class Block(NamedTuple):
    """A fenced block: where it stands, its language, its title, and the mark before it."""

    page: Path
    line: int
    language: str
    title: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


class Typed(NamedTuple):
    """One command of a transcript, and the lines that it is said to print."""

    command: str
    output: list[str]


def blocks(page: Path) -> list[Block]:
    """Every fenced block of `page`; raise ValueError for one that does not end or begins in an unknown way."""
    found: list[Block] = []
    lines = page.read_text().splitlines()
    index = 0
    while index < len(lines):
        if lines[index].lstrip().startswith("```"):
            head = _FENCE.match(lines[index])
            end = next((after for after in range(index + 1, len(lines)) if lines[after] == "```"), None)
            if head is None or end is None:
                raise ValueError(f"{page.name}:{index + 1}: a block that cannot be read")
            mark = re.fullmatch(r"<!-- (\w+) -->", lines[index - 1]) if index else None
            text = "".join(f"{line}\n" for line in lines[index + 1 : end])
            found.append(Block(page, index + 1, head[1], head[2] or "", mark[1] if mark else "", text))
            index = end
        index += 1
    return found


def prose(page: Path) -> str:
    """The page without its fenced blocks; the lines keep their numbers."""
    lines = page.read_text().splitlines()
    for block in blocks(page):
        for number in range(block.line - 1, block.line + block.text.count("\n") + 1):
            lines[number] = ""
    return "\n".join(lines)


def headings(page: Path) -> list[tuple[int, str]]:
    """Level and Markdown text of each heading."""
    return [(len(found[1]), found[2]) for line in prose(page).splitlines() if (found := _HEADING.match(line))]


def code(text: str) -> str:
    """What a code span shows: without its backticks, and without the blank that keeps them apart."""
    found = _INLINE.fullmatch(text)
    return found[2].removesuffix(" ") if found and len(found[1]) > 1 else found[2] if found else text


def spans(page: Path) -> list[str]:
    """The code spans of the page's prose."""
    return [" ".join(found[2].split()) for found in _INLINE.finditer(prose(page))]


def anchors(page: Path) -> set[str]:
    """The anchors that the site makes of the page's headings."""
    found: set[str] = set()
    for _, text in headings(page):
        plain = _INLINE.sub(lambda span: span[2], _LINK.sub("", text))
        ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())
        number, anchor = 0, slug
        while anchor in found:
            number += 1
            anchor = f"{slug}_{number}"
        found.add(anchor)
    return found


def links(page: Path) -> list[str]:
    """The targets of the page's links, those of other sites left out."""
    return [target for target in _LINK.findall(prose(page)) if "://" not in target]


def typed(block: Block) -> list[Typed]:
    """The commands of a transcript, each with the output below it."""
    found: list[Typed] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(Typed(line[2:], []))
        elif found:
            found[-1].output.append(line)
        else:
            raise ValueError(f"{block}: output without a command")
    return found


def our_words(command: str) -> list[str]:
    """The words of `command` from the first one that is a program of ours; none when there is none."""
    words = shlex.split(command, comments=True)
    start = next((index for index, word in enumerate(words) if word in PROGRAMS), len(words))
    return words[start:]


def difference(expected: Sequence[str], actual: str) -> str:
    """Say how `actual` differs from the `expected` lines; empty text where it does not.

    `…` in a line stands for any text, alone on a line for any lines. Numbers and ids count as equal, blanks as one, and
    a line that begins with an arrow as the end of the one above.
    """
    shown, wanted = _lines(actual.splitlines()), _lines(expected)
    pattern = "".join("(?:.*\n)*?" if line == "…" else f"{_line_pattern(line)}\n" for line in wanted)
    if re.fullmatch(pattern, "".join(f"{line}\n" for line in shown)):
        return ""
    return "expected:\n" + "\n".join(wanted) + "\ngot:\n" + "\n".join(shown)


def _lines(lines: Sequence[str]) -> list[str]:
    # What is to be done stands beside what was found, or below it where the terminal is too narrow.
    return "\n".join(" ".join(line.split()) for line in lines).replace("\n-> ", " ").split("\n") if lines else []


def _line_pattern(line: str) -> str:
    return "".join(_piece(piece) for piece in _VARIABLE.split(line))


def _piece(piece: str) -> str:
    if piece == "…":
        return ".*"
    if piece == "laptop":
        return r"\S+"
    if piece.isdigit():
        return r"\d+"
    return "[0-9a-f]+" if re.fullmatch(r"[0-9a-f]{8,}", piece) else re.escape(piece)


def our_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """`(place, words)` of each command of ours on the page, in blocks and in code spans."""
    for block in blocks(page):
        if block.language in ("console", "sh"):
            for line in typed(block):
                if words := our_words(line.command):
                    yield f"{block}: {line.command}", words
    for span in spans(page):
        # Forms, not commands: with placeholders in brackets, or with an omission; and a check that is called so.
        if (
            span != "aasm program"
            and span.split(" ")[0] in PROGRAMS
            and " " in span
            and not re.search(r"[…\[\]|:]", span)
        ):
            yield f"{page.name}: `{span}`", our_words(span)
