"""Text of others, made fit to be shown: short, one line, and without the secrets that may stand in it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence

from agent_assembly.launching import Files, examine

_SHOWN_WORDS = 4


def one_line(text: str, limit: int = 200) -> str:
    """`text` without control characters, at most `limit` characters of it."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(plain.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def listed(items: Iterable[str], most: int = 3) -> str:
    """`items` in a row, the first of them and how many more there are."""
    rows = list(items)
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return ", ".join(rows[:most]) + more


def shown_command(command: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
    """What a command runs, as it can be typed, without what it hands to that: there, keys and passwords stand.

    The code behind `-c` counts as such. Variables that `env` sets are left out.
    """
    words = list(command)
    if not words:
        return ""
    target = examine(words, environ or {"PATH": os.defpath}, Files())
    if target.script and target.script[0] == "-c":
        kept = [*words[: len(words) - len(target.script)], "-c", "pass"]
    elif target.script:
        own = 2 if target.script[0] == "-m" else 1
        kept = words[: len(words) - len(target.script) + own]
    else:
        # Whatever it is, a word behind an option may be a secret.
        plain = next((index for index, word in enumerate(words) if index and word.startswith("-")), len(words))
        kept = words[: min(plain, _SHOWN_WORDS)]
    if os.path.basename(kept[0]) == "env":
        kept = [word for word in kept if word.startswith("-") or "=" not in word]
    return shlex.join(kept)
