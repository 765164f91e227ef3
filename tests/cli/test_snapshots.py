"""The helper that looks at terminals: what it shows is there, and what differs is seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support import snapshots
from support.snapshots import Seen, Terminal, at_terminal, check_snapshot, in_pipe, in_shell, looks

WHERE = """
import os, sys
print(*(stream.isatty() and os.get_terminal_size(stream.fileno()).columns for stream in (sys.stdout, sys.stderr)))
"""


@pytest.mark.parametrize("columns", [7, 200])
def test_both_streams_are_terminals_of_the_size(home: Path, columns: int) -> None:
    """A program finds a terminal of as many columns on either."""
    assert at_terminal([sys.executable, "-c", WHERE], looks(home), columns) == (0, f"{columns} {columns}\n", "")
    assert in_pipe([sys.executable, "-c", WHERE], looks(home)).stdout == "False False\n"


def test_the_streams_are_told_apart_and_the_exit_code_is_kept(home: Path) -> None:
    """What is written to one is not seen on the other."""
    assert in_shell("echo out; echo error >&2; exit 7", looks(home)) == (7, "out\n", "error\n")
    assert at_terminal(["sh", "-c", "echo out; echo error >&2; exit 7"], looks(home)) == (7, "out\n", "error\n")


def test_ctrl_c_reaches_the_program_and_its_children(home: Path) -> None:
    """As at a real terminal."""
    with Terminal(["sh", "-c", "trap 'exit 3' INT; echo ready >&2; sleep 60"], looks(home)) as terminal:
        terminal.wait_for("ready")
        terminal.interrupt()
        assert terminal.end().code == 3


def test_what_never_comes_is_named(home: Path) -> None:
    """Waiting for it fails when the program ends, and shows what came instead."""
    with (
        Terminal(["sh", "-c", "echo other >&2"], looks(home)) as terminal,
        pytest.raises(AssertionError, match="other"),
    ):
        terminal.wait_for("expected")


def test_nothing_of_the_shell_that_runs_the_tests_is_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locale, colour and width are those that a test names."""
    for name in ("LC_ALL", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "AASM_MODE"):
        monkeypatch.setenv(name, "x")
    assert {"LC_ALL", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "AASM_MODE"}.isdisjoint(looks(home))
    assert looks(home, LC_ALL="C")["LC_ALL"] == "C"


def test_a_style_is_shown_where_one_can_see_it() -> None:
    """However a version of Rich writes it: each change once, blanks in whatever style, controls as escapes."""
    text = Seen(0, "\x1b[1ma\x1b[0m\x1b[1m \x1b[0m\x1b[1mb\x1b[0m  \x1b[1;31mc\x1b[0m d\n\x1b[2K", "").text()
    assert text == "exit code: 0\n--- standard output\n[bold]a b  [bold red]c [/]d\n\\x1b[2K\n--- standard error\n"


def test_a_snapshot_that_differs_or_is_not_there_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written when that is asked for, and only then; what is hidden is not compared."""
    monkeypatch.setattr(snapshots, "SNAPSHOTS", tmp_path)
    monkeypatch.delenv("UPDATE_SNAPSHOTS", raising=False)
    with pytest.raises(AssertionError, match="UPDATE_SNAPSHOTS=1"):
        check_snapshot("some", "a 1\n")
    monkeypatch.setenv("UPDATE_SNAPSHOTS", "1")
    check_snapshot("some", "a 1\n", {r"\d": "N"})
    monkeypatch.delenv("UPDATE_SNAPSHOTS")
    assert (tmp_path / "some.txt").read_text() == "a N\n"
    check_snapshot("some", "a 2\n", {r"\d": "N"})
    with pytest.raises(AssertionError, match="does not look as in"):
        check_snapshot("some", "b 2\n", {r"\d": "N"})
