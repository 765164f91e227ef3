"""The command line of `aasm-run`: its options, made from the table of settings.

Written by hand: the standard parser costs more than the rest of the launcher. Imported before the user's program: see
the import rules.
"""

from __future__ import annotations

from agent_assembly.exceptions import ConfigurationError
from agent_assembly.launching import SETTINGS, Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

USAGE = "aasm-run [OPTIONS] COMMAND [ARGS]..."
SHORT = {"-h": "--help", "-q": "--quiet", "-V": "--version"}


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
    Flag("json", "With --explain: print JSON, for programs."),
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
    for short, name in SHORT.items():
        known[short] = known[name]
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
            raise _wrong(f"unknown option {name}", name, known)
        if isinstance(row, Flag) and not row.metavar:
            if separator:
                raise _wrong(f"{name} takes no value")
            options.flags.add(row.name)
            continue
        if not separator:
            if index >= len(words) or words[index] == "--" or words[index] in known:
                raise _wrong(f"{name} needs a value")
            value = words[index]
            index += 1
        if isinstance(row, Flag):
            options.policy = value
            continue
        try:
            row.parse(value, name)
        except ConfigurationError as error:
            raise _wrong(str(error), value, row.choices) from None
        options.settings[row.name] = value
    if "no_start" in options.flags:
        options.settings["auto_start"] = False
    if "json" in options.flags and "explain" not in options.flags:
        raise _wrong("--json goes with --explain")
    options.command = tuple(words[index:])
    return options


def option_settings() -> list[Setting]:
    """The settings that have an option of their own; `auto_start` has `--no-start` instead."""
    return [row for row in SETTINGS if not row.internal and row.name != "auto_start"]


def help_text() -> str:
    """The text of `--help`, as wide as the terminal."""
    from aasm_py.run_help import help_page

    return help_page(USAGE, FLAGS, option_settings(), {name: short for short, name in SHORT.items()})


def _wrong(problem: str, word: str = "", known: Iterable[str] = ()) -> UsageError:
    """The error for `problem`, with the one of `known` that was probably meant with `word`."""
    from aasm_py.usage import near, sentence

    return UsageError(sentence(problem, near(word, known) if word else None, "aasm-run --help"))
