"""Completion scripts: they are what the programs' own options, commands and help texts make of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Optional

import pytest
import typer
from support.gateway import find_aasm
from support.programs import aasm_py, program, run_command

from aasm_py.options import UsageError, parse_options

ROOT = Path(__file__).resolve().parents[2]
SHELLS = ("bash", "zsh", "fish")
# One of them fits any option whose values are not listed.
SAMPLES = ("1", "0", "65536", "16777216", "http://127.0.0.1:1")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`scripts/` can be imported from."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield
    for name in ("completions", "command_model", "complete_bash", "complete_zsh", "complete_fish"):
        sys.modules.pop(name, None)


@pytest.fixture
def model(scripts: None) -> ModuleType:
    """The module that completions are made from."""
    import command_model

    return command_model


def test_completions_are_what_the_programs_make_of_them(scripts: None) -> None:
    """Every file of `completions/` is the one that its program's options, commands and help texts give."""
    from completions import DIRECTORY
    from completions import scripts as made

    kept = {str(path.relative_to(DIRECTORY)): path.read_text() for path in DIRECTORY.rglob("*") if path.is_file()}
    assert kept == made(find_aasm()), "type: make completions"


def test_aasm_run_takes_what_is_offered(model: ModuleType) -> None:
    """Each offered option and each offered value of it is accepted by the launcher."""
    for option in model.aasm_run().options:
        for name in option.names:
            if option.value is None:
                assert takes([name])
            elif option.value.choices:
                assert all(takes([name, choice]) for choice in option.value.choices)
            else:
                assert any(takes([name, value]) for value in SAMPLES), name


def takes(words: list[str]) -> bool:
    """Whether the launcher accepts `words` before a command."""
    try:
        parse_options([*(["--explain"] if "--json" in words else []), *words, "true"])
    except UsageError:
        return False
    return True


def test_every_command_of_aasm_py_is_offered(model: ModuleType) -> None:
    """The model holds the commands that the help names, with a description and the options of each."""
    found = {" ".join(path): command for path, command in model.walk(model.aasm_py())}
    assert {"audit list", "audit verify", "agents", "doctor", "explain", "completions", "gateway start"} <= found.keys()
    assert all(command.help for path, command in found.items() if path)
    decision = next(option for option in found["audit list"].options if "--decision" in option.names)
    assert decision.value.choices == ("allow", "deny", "redact", "approve")
    assert {path for path, command in found.items() if command.wraps} == {"doctor", "explain"}
    assert all(("--help" in option.names) == ("-h" in option.names) for option in found["agents"].options)
    offered = {name for option in found["explain"].options for name in option.names}
    assert {"--json", "--policy", "--mode", "--no-start"} <= offered
    assert not offered & {"--explain", "--version"}


def test_what_typer_calls_things_is_understood(model: ModuleType) -> None:
    """Enums, paths, metavars, hidden options and arguments come out as what they are, whichever click Typer uses."""
    import enum

    class Colour(str, enum.Enum):
        red = "red"
        green = "green"

    app = typer.Typer(add_completion=False)

    @app.command()
    def paint(
        surface: Annotated[Optional[Colour], typer.Argument()] = None,  # noqa: UP045
        colour: Annotated[Colour, typer.Option(help="First. Second.")] = Colour.red,
        source: Annotated[Optional[Path], typer.Option()] = None,  # noqa: UP045
        into: Annotated[str, typer.Option(metavar="DIR")] = "",
        dry: Annotated[bool, typer.Option("--dry/--wet", "-d")] = False,
        secret: Annotated[str, typer.Option(hidden=True)] = "",
        loud: Annotated[int, typer.Option("--loud", "-l", count=True)] = 0,
    ) -> None:
        """Paint it."""

    paint.__annotations__ = {**paint.__annotations__, **_resolved(Colour)}
    made = model.from_typer(typer.main.get_command(app), "paint")
    assert made.argument == model.Value("choice", "SURFACE", ("red", "green"))
    assert [(option.names, option.help, option.value and option.value.kind) for option in made.options] == [
        (("--colour",), "First", "choice"),
        (("--source",), "", "file"),
        (("--into",), "", "directory"),
        (("--dry", "--wet", "-d"), "", None),
        (("--loud", "-l"), "", None),
        (("--help",), "Show what it does and takes", None),
    ]


def _resolved(colour: type) -> dict[str, object]:
    """The annotations that name a class of the test."""
    return {
        "surface": Annotated[Optional[colour], typer.Argument()],  # noqa: UP045
        "colour": Annotated[colour, typer.Option(help="First. Second.")],
    }


@pytest.mark.parametrize("word", ["a b", "$(id)", "`id`", "a'b", 'a"b', "a;b", "a\nb", "*", "", "a\\b"])
def test_words_that_a_shell_would_read_are_refused(word: str, model: ModuleType) -> None:
    """Names and choices go into the scripts as they are, hence only those that mean nothing to a shell."""
    with pytest.raises(ValueError, match="completion script"):
        model.Value("choice", choices=(word,))
    with pytest.raises(ValueError, match="completion script"):
        model.Command(word)
    with pytest.raises(ValueError, match="completion script"):
        model.Option((f"--{word}",))


@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_prints_the_scripts_of_all_three_programs(shell: str, home: Path) -> None:
    """`aasm-py completions SHELL` prints what is kept, and nothing else is on standard output."""
    result = aasm_py(["completions", shell], home)
    assert result.returncode == 0
    assert result.stderr == ""
    for path in (ROOT / "completions" / shell).iterdir():
        assert path.read_text() in result.stdout


def test_without_a_shell_it_says_what_to_put_where(home: Path) -> None:
    """The line for the shell that $SHELL names, or one for each shell."""
    for shell in SHELLS:
        result = run_command([program("aasm-py"), "completions"], home, environ={"SHELL": f"/usr/local/bin/{shell}"})
        assert result.returncode == 0
        assert [name for name in SHELLS if f"aasm-py completions {name}" in result.stdout] == [shell]
    for unknown in ("/bin/tcsh", ""):
        text = run_command([program("aasm-py"), "completions"], home, environ={"SHELL": unknown}).stdout
        assert all(f"aasm-py completions {name}" in text for name in SHELLS)


def test_an_unknown_shell_is_refused(home: Path) -> None:
    """Exit code 2, and one line that names the shells that there are."""
    result = aasm_py(["completions", "fsh"], home)
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert all(shell in result.stderr for shell in SHELLS)


def test_help_texts_of_completions_fit_a_terminal(model: ModuleType) -> None:
    """A description is one sentence without line breaks and control characters."""
    for made in (model.aasm_run(), model.aasm_py()):
        for _, command in model.walk(made):
            for text in (command.help, *(option.help for option in command.options)):
                assert text.isprintable()
                assert not text.endswith(".")
                assert os.linesep not in text
