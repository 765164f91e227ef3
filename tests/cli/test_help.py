"""What a newcomer reads: the help of `aasm-run` and `aasm-py`, at terminals of every width, and what it costs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.gateway import Gateway
from support.programs import program
from support.snapshots import at_terminal, check_snapshot, in_pipe, in_shell, looks

GROUPS = [["aasm-py"], ["aasm-py", "audit"], ["aasm-py", "gateway"]]
COMMANDS = [
    *(["aasm-py", "audit", name] for name in ("list", "count", "tail", "verify")),
    *(["aasm-py", "gateway", name] for name in ("start", "stop", "status")),
    *(["aasm-py", name] for name in ("agents", "runs", "explain", "doctor", "completions")),
]
PAGES = [["aasm-run"], *GROUPS, *COMMANDS]

# What the command line itself needs, and nothing that it might need later.
OF_OURS = {
    "aasm_py",
    "aasm_py.commands",
    "aasm_py.entry",
    "aasm_py.main",
    "aasm_py.own_path",
    "aasm_py.streams",
    "agent_assembly",
    "agent_assembly._version",
    "agent_assembly.exceptions",
}
HEAVY = {"httpx", "psutil", "yaml", "rich", "pydantic", "http", "json"}
TO_ASK_THE_GATEWAY = {
    *("aasm_py.audit", "aasm_py.control", "aasm_py.moments", "aasm_py.progress", "agent_assembly.launching"),
    *("agent_assembly.core", "agent_assembly.core.exchange", "agent_assembly.core.home", "agent_assembly.core.modes"),
    *("agent_assembly.core.local_gateway", "agent_assembly.core.proof", "agent_assembly.core.settings"),
    "agent_assembly.core.target",
}


def help_of(words: list[str], home: Path) -> str:
    seen = in_pipe([*words, "--help"], looks(home))
    assert (seen.code, seen.stderr) == (0, "")
    return seen.stdout


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_each_page_looks_as_it_was_looked_at(home: Path, words: list[str]) -> None:
    """At a terminal of 80 columns; `-h` is the same page."""
    seen = at_terminal([*words, "--help"], looks(home))
    assert at_terminal([*words, "-h"], looks(home)) == seen
    check_snapshot(f"help-{'-'.join(words)}", seen.text())


@pytest.mark.parametrize("columns", [40, 200])
@pytest.mark.parametrize("words", [["aasm-run"], ["aasm-py"], ["aasm-py", "audit", "list"]], ids=" ".join)
def test_a_narrow_or_wide_terminal_gets_a_page_of_its_own(home: Path, words: list[str], columns: int) -> None:
    """Narrow ones get the explanation below the option; no page is wider than 100 columns."""
    seen = at_terminal([*words, "--help"], looks(home), columns)
    check_snapshot(f"help-{'-'.join(words)}-{columns}", seen.text())


@pytest.mark.parametrize("columns", ["40", "63", "80", "99", "1000000"])
@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_no_line_is_wider_than_the_terminal(home: Path, words: list[str], columns: str) -> None:
    """But for what is there to be typed, which is never broken: examples and options."""
    page = in_pipe([*words, "--help"], looks(home, COLUMNS=columns)).stdout
    too_long = [line for line in page.splitlines() if len(line) > min(int(columns), 100)]
    assert [line for line in too_long if not re.match(r"  (aasm|eval|-)", line)] == []
    assert page.isascii()
    assert [line for line in page.splitlines() if line != line.rstrip()] == []


@pytest.mark.parametrize("columns", ["", "0", "-1", "wide", "9" * 30, "8e1"])
def test_columns_that_cannot_be_true_are_ignored(home: Path, columns: str) -> None:
    """A variable that says nothing sensible is as none: a terminal's own width counts, in a pipe 80."""
    plain = help_of(["aasm-py"], home)
    if columns != "9" * 30:
        assert in_pipe(["aasm-py", "--help"], looks(home, COLUMNS=columns)).stdout == plain
    assert at_terminal(["aasm-py", "--help"], looks(home, COLUMNS=columns)).stdout == plain


@pytest.mark.parametrize(
    "environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"LC_ALL": "C"}, {"FORCE_COLOR": "1"}], ids=str
)
@pytest.mark.parametrize("name", ["aasm-run", "aasm-py"])
def test_help_is_the_same_everywhere(home: Path, name: str, environ: dict[str, str]) -> None:
    """No colour, no frames, nothing beyond ASCII: no environment can spoil it."""
    assert at_terminal([name, "--help"], looks(home, **environ)).stdout == help_of([name], home)


@pytest.mark.parametrize("words", [["aasm-run"], *GROUPS], ids=" ".join)
def test_whoever_is_stuck_is_sent_to_the_doctor(home: Path, words: list[str]) -> None:
    """It is the last line of the help of both programs."""
    assert help_of(words, home).endswith("\nStuck? Begin with: aasm-py doctor\n")


def test_a_group_without_a_command_shows_its_help_as_wrong_usage(home: Path) -> None:
    """On standard error, with exit code 2: a script that forgot the command does not take it for success."""
    for words in GROUPS:
        seen = in_pipe(words, looks(home))
        assert (seen.code, seen.stdout, seen.stderr) == (2, "", help_of(words, home))


@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_examples_can_be_typed(home: Path, words: list[str]) -> None:
    """Each begins with a program of ours, and has only commands and options that are there."""
    page = in_pipe([*words, "--help"], looks(home, COLUMNS="40")).stdout
    examples = re.findall(
        r"^  (aasm-(?:py|run) [^\n]+)$", page.partition("\n\nExamples:\n")[2].partition("\n\n")[0], re.MULTILINE
    )
    assert examples
    for example in examples:
        typed = shlex.split(example)
        ours = [word for word in typed[1:] if re.fullmatch(r"[a-z]+", word)] if typed[0] == "aasm-py" else []
        fitting = [known for known in PAGES if known[0] == typed[0] and known[1:] == ours[: len(known) - 1]]
        name = max(fitting, key=len)
        given = {word.partition("=")[0] for word in typed if word.startswith("--") and word != "--"}
        allowed = help_of(name, home) + (help_of(["aasm-run"], home) if "explain" in typed else "")
        assert [option for option in given if option not in allowed] == []


def test_help_into_a_pipe_that_nobody_reads_is_quiet(home: Path) -> None:
    """A reader that goes away is no error that one would have to read about."""
    for name in ("aasm-run", "aasm-py"):
        seen = in_shell(f"{name} --help | true; echo ${{PIPESTATUS[0]}}", looks(home))
        assert seen.stderr == ""
        assert seen.stdout in ("141\n", "0\n")


def imported(*words: str, home: Path) -> set[str]:
    """The modules that `aasm-py WORDS` imports."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", str(program("aasm-py")), *words],
        env=looks(home),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines[1:]}


def of_ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] in ("aasm_py", "agent_assembly")}


@pytest.mark.parametrize(("words", "more"), [(["--version"], set()), (["--help"], {"aasm_py.help"})])
def test_the_command_line_starts_with_no_more_than_it_needs(home: Path, words: list[str], more: set[str]) -> None:
    """Neither what talks to gateways, nor what reads YAML or processes, nor what draws tables, nor any adapter."""
    modules = imported(*words, home=home)
    assert of_ours(modules) <= OF_OURS | more
    assert modules & HEAVY == set()


def test_asking_the_gateway_needs_no_more_than_that(gateway: Gateway) -> None:
    """Rich comes for tables only; httpx, Pydantic, YAML and psutil never."""
    modules = imported("audit", "list", "--json", home=gateway.home)
    assert of_ours(modules) <= OF_OURS | TO_ASK_THE_GATEWAY
    assert modules & (HEAVY - {"http", "json"}) == set()
    drawn = imported("audit", "list", home=gateway.home)
    assert of_ours(drawn) <= OF_OURS | TO_ASK_THE_GATEWAY | {"aasm_py.render"}
    assert drawn & (HEAVY - {"http", "json", "rich"}) == set()
