"""Typer, with our help pages and one-line errors, alike under every version of it.

Older versions use the package click, newer ones bring their own: what comes from either is told by what it has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

PROGRAM = "aasm-py"


class Misuse(Exception):
    """The command line cannot be understood; exit code 2.

    `suggestion` is what was probably meant, `place` the command whose help says more; whoever knows it fills it in.
    """

    def __init__(self, problem: str, suggestion: str | None = None) -> None:
        super().__init__(problem)
        self.suggestion = suggestion
        self.place: str | None = None

    def __str__(self) -> str:
        from aasm_py.usage import sentence

        return sentence(str(self.args[0]), self.suggestion, f"{self.place or PROGRAM} --help")


class Command(TyperCommand):
    """A command. Its docstring says what it is for; its `epilog` holds examples, see `examples()`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _spared(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(_page(self, ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        allowed = ctx.allow_extra_args
        _refuse_swallowed_option(self, ctx, args)
        ctx.allow_extra_args = True
        try:
            rest = super().parse_args(ctx, args)
        except Exception as error:  # noqa: BLE001 - told apart by what they have, since their module depends on the version
            _translate(error, self, ctx)
        ctx.allow_extra_args = allowed
        if ctx.args and not allowed and not ctx.resilient_parsing:
            raise _placed(Misuse(f"unexpected argument {ctx.args[0]}"), ctx)
        return rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Misuse as error:
            raise _placed(error, ctx) from None


class Group(TyperGroup):
    """A command with commands of its own; without one of them it shows its help, which is wrong usage."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _spared(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(_page(self, ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            sys.stderr.write(f"{ctx.get_help()}\n")
            raise typer.Exit(2)
        try:
            rest = super().parse_args(ctx, args)
        except Exception as error:  # noqa: BLE001 - told apart by what they have, since their module depends on the version
            _translate(error, self, ctx)
        return rest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            raise _placed(Misuse(f"unknown command {name}", self._meant(ctx, name)), ctx)
        return super().resolve_command(ctx, args)

    def _meant(self, ctx: Any, name: str) -> str | None:
        """A command of this group, else one further away with its whole name."""
        from aasm_py.usage import near

        found = near(name, self.commands)
        if found is not None:
            return found
        everywhere: dict[str, str] = {}
        for path in _paths(ctx.find_root().command, (PROGRAM,)):
            everywhere.setdefault(path[-1], " ".join(path))
        further = near(name, everywhere)
        return everywhere[further] if further else None


class App(typer.Typer):
    """An application, or a group of commands, of `Command`s."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            cls=Group,
            context_settings={"help_option_names": ["-h", "--help"]},
            add_completion=False,
            pretty_exceptions_enable=False,
            rich_markup_mode=None,
            **options,
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        return super().command(name, **{"cls": Command, **options})


def examples(*rows: tuple[str, str]) -> str:
    """Return the `epilog` of a command: lines that can be typed, each with what it does."""
    return "\n".join(f"{line}  # {text}" for line, text in rows)


def run(app: typer.Typer, words: Sequence[str]) -> int:
    """Run the command that `words` name; return its exit code. Raises Misuse and whatever the command raises."""
    command = typer.main.get_command(app)
    try:
        with command.make_context(PROGRAM, list(words)) as context:
            command.invoke(context)
    except typer.Exit as exit_:
        return exit_.exit_code
    except Exception as error:
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        misuse = Misuse(_plain(str(message())))
        where = getattr(error, "ctx", None)
        raise (_placed(misuse, where) if where is not None else misuse) from None
    return 0


def _paths(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield (*path, name)
            yield from _paths(inner, (*path, name))


def _placed(error: Misuse, ctx: Any) -> Misuse:
    error.place = error.place or " ".join(ctx.command_path.split())
    return error


def _translate(error: Exception, command: Any, ctx: Any) -> NoReturn:
    """Raise `error` as Misuse if it says that the command line is wrong, else as it is."""
    if getattr(error, "format_message", None) is None or not isinstance(getattr(error, "exit_code", None), int):
        raise error
    option = getattr(error, "option_name", None)
    if option is None:
        raise _placed(Misuse(_plain(str(error.format_message()))), ctx) from None  # type: ignore[attr-defined]
    known = _options(command, ctx)
    given = _dashed(option, known)
    if given not in known:
        from aasm_py.usage import near

        raise _placed(Misuse(f"unknown option {given}", near(given, known)), ctx) from None
    needs = "takes no value" if getattr(known[given], "is_flag", False) else "needs a value"
    raise _placed(Misuse(f"{given} {needs}"), ctx) from None


def _dashed(option: str, known: dict[str, Any]) -> str:
    """The option as it was typed; some versions leave its dashes out."""
    if option.startswith("-"):
        return option
    return next((name for name in known if name.lstrip("-") == option), f"--{option}")


def _options(command: Any, ctx: Any) -> dict[str, Any]:
    parameters = [row for row in command.get_params(ctx) if row.param_type_name == "option"]
    return {name: row for row in parameters if not getattr(row, "hidden", False) for name in _names(row)}


class _AsItIs:
    """What a word of the command line becomes: nothing else."""

    def coerce(self, value: Any, **_: Any) -> Any:
        return value


def _spared(parameters: list[Any]) -> list[Any]:
    """Spare newer versions the Pydantic with which they turn text into text: it costs more than most commands."""
    for row in parameters:
        annotation = getattr(getattr(row, "type_descriptor", None), "annotation", None)
        if annotation in (str, bool) and row.nargs == 1 and hasattr(row, "get_runtime_param"):
            row.get_runtime_param = _AsItIs
    return parameters


def _refuse_swallowed_option(command: Any, ctx: Any, args: Sequence[str]) -> None:
    """Raise Misuse where an option without its value would take the next option for it."""
    known = _options(command, ctx)
    for word, following in pairwise(args):
        if word == "--" or (not ctx.allow_interspersed_args and not word.startswith("-")):
            return
        row = known.get(word)
        if row is not None and not getattr(row, "is_flag", False) and (following == "--" or following in known):
            raise _placed(Misuse(f"{word} needs a value"), ctx)


def _names(parameter: Any) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts]


def _plain(message: str) -> str:
    text = " ".join(message.split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _page(command: Any, ctx: Any) -> str:
    from aasm_py import help as help_page
    from aasm_py.streams import terminal_width

    # Versions differ in how they write that a group wants a command.
    pieces = ["[OPTIONS] COMMAND [ARGS]..."] if isinstance(command, Group) else command.collect_usage_pieces(ctx)
    usage = " ".join([*ctx.command_path.split(), *pieces])
    lines = (line.partition("  # ") for line in (command.epilog or "").splitlines() if line.strip())
    shown = [(line.strip(), text.strip()) for line, _, text in lines]
    sections = [*_commands(command), *_parameters(command, ctx)]
    closing = [help_page.STUCK] if isinstance(command, Group) else []
    return help_page.page(usage, _purpose(command), shown, sections, closing, terminal_width())


def _purpose(command: Any) -> str:
    return str(command.help or "").partition("\f")[0].strip()


def _commands(command: Any) -> list[Any]:
    panels: dict[str, list[tuple[str, str]]] = {}
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            text = " ".join((inner.short_help or _purpose(inner).partition("\n\n")[0]).split())
            panels.setdefault(getattr(inner, "rich_help_panel", None) or "Commands", []).append((name, text))
    return _sections(panels)


def _parameters(command: Any, ctx: Any) -> list[Any]:
    from aasm_py.help import option_row

    panels: dict[str, list[tuple[str, str]]] = {}
    last: list[tuple[str, str]] = []
    for row in command.get_params(ctx):
        if getattr(row, "hidden", False):
            continue
        text = getattr(row, "help", None) or ""
        panel = getattr(row, "rich_help_panel", None)
        if row.param_type_name == "argument":
            panels.setdefault(panel or "Arguments", []).append((row.metavar or row.name.upper(), text))
        elif set(row.opts) & {"--help", "-h"}:
            last.append(option_row(_names(row), "", "Show this text."))
        else:
            flag = getattr(row, "is_flag", False) or getattr(row, "count", False)
            metavar = "" if flag else row.metavar or row.name.upper()
            rows = panels.setdefault(panel or "Options", [])
            rows.append(option_row(_names(row), metavar, text, "" if flag else _default(row)))
    panels.setdefault("Options", []).extend(last)
    # Options without a panel of their own come last, as the least special ones.
    panels["Options"] = panels.pop("Options")
    return _sections(panels)


def _default(row: Any) -> str:
    value = getattr(row.default, "value", row.default)
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


def _sections(panels: dict[str, list[tuple[str, str]]]) -> list[Any]:
    from aasm_py.help import Section

    return [Section(title, rows) for title, rows in panels.items()]
