"""What completions are made from: a program, its commands, their options, and the values that those take.

`aasm-run` has it in its own table of options, `aasm-py` in the tree that Typer makes.
"""

from __future__ import annotations

import enum
import inspect
import re
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from aasm_py.options import FLAGS, SHORT, Flag, option_settings
from agent_assembly import Setting

Kind = Literal["text", "choice", "file", "directory"]

_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,+/-]*")
_OPTION = re.compile(r"--?[A-Za-z0-9][A-Za-z0-9-]*")
_POLICY_ENDINGS = (".yaml", ".yml")
# Options of `aasm-run` that `aasm-py explain` does not hand on: it is the one, and has the other itself.
_NOT_PASSED_ON = ("--explain", "--version")


@dataclass(frozen=True)
class Value:
    """What an option or a command takes. `endings` are those of the files that fit best."""

    kind: Kind
    name: str = "VALUE"
    choices: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word in (*self.choices, *(ending.lstrip(".") for ending in self.endings), *self.name.split("|")):
            _check(_WORD, word)


@dataclass(frozen=True)
class Option:
    """One option under all its names; without a value it is a flag."""

    names: tuple[str, ...]
    help: str = ""
    value: Value | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            _check(_OPTION, name)
        object.__setattr__(self, "help", _sentence(self.help))


@dataclass(frozen=True)
class Command:
    """A command: its options, and either commands of its own, or one argument, or (`wraps`) another command line."""

    name: str
    help: str = ""
    options: tuple[Option, ...] = ()
    commands: tuple[Command, ...] = ()
    argument: Value | None = None
    wraps: bool = False

    def __post_init__(self) -> None:
        _check(_WORD, self.name)
        object.__setattr__(self, "help", _sentence(self.help))


def walk(command: Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Command]]:
    """Return a program's commands with the names that lead to each, itself first."""
    found = [(path, command)]
    for inner in command.commands:
        found += walk(inner, (*path, inner.name))
    return found


def aasm_run() -> Command:
    """The command line of `aasm-run`."""
    rows: list[Flag | Setting] = [*FLAGS, *option_settings()]
    return Command("aasm-run", options=tuple(map(_launcher_option, rows)), wraps=True)


def aasm_py() -> Command:
    """The command line of `aasm-py`."""
    import typer

    from aasm_py.main import app

    return from_typer(typer.main.get_command(app), "aasm-py")


def from_typer(command: Any, name: str, help_names: tuple[str, ...] = ("--help",)) -> Command:
    """Read a command of Typer's tree. Its classes depend on Typer's version: they are told by what they have."""
    settings = command.context_settings
    help_names = tuple(settings.get("help_option_names", help_names))
    rows = [row for row in command.params if not getattr(row, "hidden", False)]
    annotations = _annotations(command.callback)
    options = [_typer_option(row, annotations) for row in rows if row.param_type_name == "option"]
    options.append(Option(_longest_first(help_names), "Show what it does and takes"))
    inner = getattr(command, "commands", None)
    values = (_typer_value(row, annotations) for row in rows if row.param_type_name == "argument" and row.nargs == 1)
    made = Command(
        name,
        command.short_help or command.help or "",
        tuple(options),
        tuple(from_typer(row, key, help_names) for key, row in (inner or {}).items() if not row.hidden),
        next((value for value in values if value.kind != "text"), None),
        # Options end where a word begins that is none: what follows is the command line of another program.
        wraps=inner is None and settings.get("allow_interspersed_args") is False,
    )
    if made.wraps and settings.get("ignore_unknown_options"):
        # What it does not know goes to `aasm-run`.
        known = {option for row in made.options for option in row.names}
        more = [row for row in aasm_run().options if not known.intersection(row.names)]
        made = replace(made, options=(*made.options, *(row for row in more if row.names[0] not in _NOT_PASSED_ON)))
    return made


def _launcher_option(row: Flag | Setting) -> Option:
    if isinstance(row, Flag):
        value = None
        if row.metavar:
            value = Value("file", row.metavar, endings=_POLICY_ENDINGS if row.name == "policy" else ())
        return Option((row.option, *(short for short, long in SHORT.items() if long == row.option)), row.help, value)
    if row.choices:
        value = Value("choice", row.name.upper(), tuple(row.choices))
    elif row.kind == "boolean":
        value = Value("choice", row.name.upper(), ("yes", "no"))
    else:
        value = Value("directory" if row.kind == "path" else "text", row.name.upper())
    return Option((row.option,), row.help, value)


def _typer_option(row: Any, annotations: dict[str, Any]) -> Option:
    names = _longest_first((*row.opts, *row.secondary_opts))
    flag = getattr(row, "is_flag", False) or getattr(row, "count", False)
    return Option(names, row.help or "", None if flag else _typer_value(row, annotations))


def _typer_value(row: Any, annotations: dict[str, Any]) -> Value:
    metavar = (row.metavar or "").strip("[]<>.…")
    name = (metavar or row.name).upper()
    if "|" in metavar and metavar.islower():
        return Value("choice", row.name.upper(), tuple(metavar.split("|")))
    kinds = _types(annotations.get(row.name))
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return Value("choice", name, tuple(str(member.value) for member in kind))
        if typing.get_origin(kind) is Literal:
            return Value("choice", name, tuple(map(str, typing.get_args(kind))))
    if name in ("DIR", "DIRECTORY"):
        return Value("directory", name)
    return Value("file" if Path in kinds or {"FILE", "PATH"}.intersection(name.split("|")) else "text", name)


def _annotations(function: Any) -> dict[str, Any]:
    return typing.get_type_hints(inspect.unwrap(function)) if function is not None else {}


def _types(annotation: Any) -> tuple[Any, ...]:
    """The types of an annotation that may be optional."""
    if typing.get_origin(annotation) is Literal or not typing.get_args(annotation):
        return (annotation,)
    return typing.get_args(annotation)


def _longest_first(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: not name.startswith("--")))


def _sentence(text: str) -> str:
    """The first sentence of a help text, on one line and without its full stop."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return re.split(r"(?<=[\w)]{2})\. ", line)[0].removesuffix(".")


def _check(pattern: re.Pattern[str], word: str) -> None:
    if not pattern.fullmatch(word):
        raise ValueError(f"{word!r} cannot stand in a completion script as it is")
