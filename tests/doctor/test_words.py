"""What is shown of text that others wrote."""

from __future__ import annotations

import sys

import pytest

from aasm_py.doctor.words import listed, one_line, shown_command

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ([PYTHON, "agent.py", "--key", "s3cret"], f"{PYTHON} agent.py"),
        ([PYTHON, "-X", "dev", "my agent.py", "s3cret"], f"{PYTHON} -X dev 'my agent.py'"),
        ([PYTHON, "-m", "agents", "s3cret"], f"{PYTHON} -m agents"),
        ([PYTHON, "-c", "key = 's3cret'"], f"{PYTHON} -c pass"),
        (["env", "KEY=s3cret", PYTHON, "agent.py", "s3cret"], f"env {PYTHON} agent.py"),
        (["timeout", "5", PYTHON, "agent.py", "s3cret"], f"timeout 5 {PYTHON} agent.py"),
        (["sh", "-c", "KEY=s3cret python agent.py"], "sh"),
        (["no-such-program", "serve", "--token=s3cret"], "no-such-program serve"),
        (["env", "KEY=s3cret"], "env"),
        ([], ""),
    ],
)
def test_a_command_without_what_it_hands_on(command: list[str], shown: str) -> None:
    """It can be typed, and what may be secret is not in it."""
    found = shown_command(command)
    assert found == shown
    assert "s3cret" not in found


def test_text_becomes_one_line() -> None:
    assert one_line("a\n\tb\x1b[31m c") == "a b [31m c"
    assert one_line("x" * 300) == "x" * 199 + "…"


def test_long_lists_are_cut() -> None:
    assert listed([]) == ""
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed("abcde") == "a, b, c and 2 more"
