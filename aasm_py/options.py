"""The command line of `aasm-run`: its options, made from the table of settings, and the help that shows them.

Written by hand: the standard parser costs more than the rest of the launcher. Imported before the user's program: see
the import rules.
"""

from __future__ import annotations

from agent_assembly.exceptions import ConfigurationError
from agent_assembly.launching import SETTINGS, Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

USAGE = "aasm-run [OPTIONS] COMMAND [ARGS…]"


class Flag:
    """An option that is not a setting; with `metavar` it takes a value."""

    __slots__ = ("help", "metavar", "name")

    def __init__(self, name: str, help: str, metavar: str = "") -> None:
        self.name = name
        self.help = help
        self.metavar = metavar

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")


FLAGS = (
    Flag("policy", "A policy for this run, in addition to the gateway's.", "FILE"),
    Flag("no_start", "Do not start a gateway when none is found."),
    Flag("allow_ungoverned", "Run also a program that cannot be governed."),
    Flag("quiet", "Say nothing but why something is refused."),
    Flag("explain", "Show what would be done, and do nothing."),
    Flag("json", "With --explain: as JSON."),
    Flag("help", "Show this text."),
    Flag("version", "Show the version."),
)


class UsageError(Exception):
    """The command line cannot be understood; exit code 2."""


class Options:
    """What was given: `settings` by name, the flags, the policy's file, and the command."""

    __slots__ = ("command", "flags", "policy", "settings")

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.flags: set[str] = set()
        self.policy: str | None = None
        self.command: tuple[str, ...] = ()


def parse_options(words: Sequence[str]) -> Options:
    """Read options up to the first word that is none; the rest is the command. Raises UsageError."""
    options = Options()
    rows: list[Setting | Flag] = [*option_settings(), *FLAGS]
    known = {row.option: row for row in rows}
    known["-h"] = known["--help"]
    known["-q"] = known["--quiet"]
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            index += 1
            break
        if not word.startswith("-") or word == "-":
            break
        index += 1
        name, separator, value = word.partition("=")
        row = known.get(name)
        if row is None:
            raise UsageError(_unknown(name, list(known)))
        if isinstance(row, Flag) and not row.metavar:
            if separator:
                raise UsageError(f"{name} takes no value")
            options.flags.add(row.name)
            continue
        if not separator:
            if index >= len(words):
                raise UsageError(f"{name} needs a value")
            value = words[index]
            index += 1
        if isinstance(row, Flag):
            options.policy = value
            continue
        try:
            row.parse(value, name)
        except ConfigurationError as error:
            raise UsageError(str(error)) from None
        options.settings[row.name] = value
    if "no_start" in options.flags:
        options.settings["auto_start"] = False
    if "json" in options.flags and "explain" not in options.flags:
        raise UsageError("--json goes with --explain")
    options.command = tuple(words[index:])
    return options


def option_settings() -> list[Setting]:
    """The settings that have an option of their own; `auto_start` has `--no-start` instead."""
    return [row for row in SETTINGS if not row.internal and row.name != "auto_start"]


def _unknown(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return f"unknown option {name}" + (f", did you mean {near[0]}?" if near else "; see aasm-run --help")


def help_text() -> str:
    """The text of `--help`."""
    rows = [(f"{row.option} {row.metavar}".rstrip(), row.help) for row in FLAGS]
    settings = [(f"{row.option} {_metavar(row)}", row.help + _default(row)) for row in option_settings()]
    width = max(len(left) for left, _ in rows + settings) + 2
    lines = [
        f"Usage: {USAGE}",
        "",
        "Run a program under governance: every tool call of its agents is checked and recorded.",
        "",
        "  aasm-run python agent.py",
        "  aasm-run --policy policy.yaml --agent-id support python -m my_agent",
        "",
        "Options:",
        *(f"  {left:<{width}}{text}" for left, text in rows),
        "",
        "Settings (also as variable AASM_NAME and as name in config.yaml):",
        *(line for left, text in settings for line in _wrapped(left, text, width)),
        "",
        "Exit codes: the program's own; 2 wrong usage, 78 refused, 126 not executable, 127 not found.",
    ]
    return "\n".join(lines) + "\n"


def _wrapped(left: str, text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) + width + 3 > 100:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".lstrip()
    lines.append(line)
    return [f"  {left:<{width}}{lines[0]}", *(f"  {'':<{width}}{line}" for line in lines[1:])]


def _metavar(row: Setting) -> str:
    if row.choices:
        return "|".join(row.choices)
    return {"url": "URL", "integer": "N", "number": "N", "path": "DIR", "boolean": "yes|no"}.get(row.kind, "TEXT")


def _default(row: Setting) -> str:
    return f" [{row.default}]" if row.default is not None and row.name != "home" else ""
