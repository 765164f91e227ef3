"""The code of the documentation works: policies load, configurations are accepted, programs run, commands parse."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from support.gateway import Gateway, find_aasm
from support.pages import PAGES, PROGRAMS, ROOT, Block, blocks, our_commands, our_words
from support.programs import run_agent, run_command

from aasm_py import main as command_line
from aasm_py.commands import Misuse
from aasm_py.options import UsageError, parse_options
from agent_assembly import resolve_settings

BLOCKS = [block for page in PAGES for block in blocks(page)]
YAML = [block for block in BLOCKS if block.language == "yaml"]
POLICIES = [block for block in YAML if "apiVersion:" in block.text]
CONFIGURATIONS = [block for block in YAML if block not in POLICIES]
COMMANDS = [found for page in PAGES for found in our_commands(page)]
LANGUAGES = {"console", "dockerfile", "python", "sh", "text", "yaml"}


def test_every_block_says_what_it_is() -> None:
    """A block has a language, of those that these tests know how to try."""
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []
    assert all(block.mark in ("", "run", "refused") for block in BLOCKS)


@pytest.mark.parametrize("block", POLICIES, ids=str)
def test_policies_load(block: Block, gateway: Gateway, tmp_path: Path) -> None:
    """A real gateway accepts each policy whole; it refuses those that are shown as refused."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(block.text)
    result = run_agent(["-c", "pass"], gateway, options=["--policy", policy])
    assert (result.returncode, "is refused" in result.stderr) == ((78, True) if block.mark else (0, False))


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=str)
def test_configurations_are_accepted(block: Block, home: Path) -> None:
    """The reader of config.yaml takes each of them, and its values are those that hold."""
    assert block.title == "config.yaml"
    path = home / "config.yaml"
    path.write_text(block.text)
    path.chmod(0o600)
    settings = resolve_settings({}, {"AASM_HOME": str(home)})
    names = re.findall(r"^(\w+):", block.text, re.MULTILINE)
    assert names
    assert all(settings.source(name).startswith(str(path)) for name in names)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_programs_run(block: Block, gateway: Gateway, tmp_path: Path) -> None:
    """Each Python block is a program that ends well, beside a gateway and under `aasm-run`."""
    program = tmp_path / (block.title or "program.py")
    program.write_text(block.text)
    alone = run_command([sys.executable, program], gateway.home)
    assert alone.returncode == 0, alone.stderr
    governed = run_agent([program], gateway)
    assert governed.returncode == 0, governed.stderr


def test_files_of_the_example_are_shown_as_they_are() -> None:
    """A block with the name of a file of the example holds that file."""
    example = ROOT / "examples" / "langchain_support_bot"
    shown = [block for block in BLOCKS if block.title and (example / block.title).exists()]
    assert shown
    assert [str(block) for block in shown if block.text != (example / block.title).read_text()] == []


@cache
def help_of(*words: str) -> str:
    """The help of a command of `aasm`."""
    return subprocess.run([find_aasm(), *words, "--help"], capture_output=True, text=True, check=True).stdout


def check_aasm(words: list[str]) -> None:
    """Raise AssertionError unless `aasm` has the command and its options."""
    path: list[str] = []
    for word in words:
        if word == "help" and not path:
            return
        if not re.search(rf"^  {re.escape(word)}\s", help_of(*path).partition("Commands:")[2], re.MULTILINE):
            break
        path.append(word)
    rest = words[len(path) :]
    text = help_of(*path)
    assert path or words[0].startswith("-"), f"aasm has no command {words[0]}"
    assert "Commands:" not in text or not path, f"aasm {' '.join(path)} needs one more word"
    unknown = [word for word in rest if word.startswith("-") and not re.search(rf"{re.escape(word)}\b", text)]
    assert not unknown, f"aasm {' '.join(path)} has no {unknown}"


def check_aasm_py(words: list[str]) -> None:
    """Raise what Typer raises for a command line that `aasm-py` does not take."""
    command: Any = typer.main.get_command(command_line.app)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    assert not hasattr(command, "commands") or not words or words[0].startswith("-"), f"aasm-py has no {words[0]}"
    if words in ([], ["--help"], ["--version"]):
        return
    command.make_context("aasm-py", list(words))


def check_aasm_run(words: list[str]) -> None:
    """Raise UsageError for a command line that `aasm-run` does not take."""
    parse_options(words)


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "aasm": check_aasm,
    "aasm-py": check_aasm_py,
    "aasm-run": check_aasm_run,
}


@pytest.mark.parametrize("found", COMMANDS, ids=lambda found: found[0])
def test_commands_are_understood(found: tuple[str, list[str]]) -> None:
    """Each command of ours parses with the parser of its program, and so does what it has behind it."""
    _, words = found
    while words:
        program, words = words[0], words[1:]
        following = our_words(" ".join(map(_quoted, words)))
        CHECKS[program](words)
        words = following


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


MISSPELT = (
    "aasm strat",
    "aasm start --prot 1",
    "aasm audit",
    "aasm-run --polcy x y",
    "aasm-py nothing",
    "aasm-py audit lst",
    "aasm-py audit list --agnet x",
)


@pytest.mark.parametrize("line", MISSPELT)
def test_commands_that_are_none_are_found(line: str) -> None:
    """The test above would see a misspelt command or option."""
    program, *words = line.split()
    with pytest.raises((AssertionError, Misuse, UsageError)):
        CHECKS[program](words)


def test_the_programs_are_those_of_the_environment() -> None:
    """The documentation speaks of three programs, and all of them are installed."""
    assert all(os.access(Path(sys.executable).parent / name, os.X_OK) for name in PROGRAMS)
