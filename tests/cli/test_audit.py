"""`aasm-py audit …`: what the log holds, as people and programs get it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support.calls import make_calls
from support.gateway import Gateway, clean_environment
from support.programs import aasm_py, program

POLICY = """\
apiVersion: agent-assembly/v1
kind: Policy
metadata: {name: desk}
default: allow
rules:
  - id: no-deletions
    on: tool
    match: {tool: "delete_*"}
    effect: deny
    reason: Nobody deletes here.
"""

StartGateway = Callable[..., Gateway]


@pytest.fixture
def desk(start_gateway: StartGateway) -> Gateway:
    """A gateway with a policy, after two agents made five calls, one of which was denied."""
    gateway = start_gateway(policy=POLICY)
    make_calls(gateway, ["read_file", "delete_file", "search"], agent="ada")
    make_calls(gateway, ["read_file", "search"], agent="bob")
    return gateway


def listed(gateway: Gateway, *options: str) -> list[dict[str, Any]]:
    result = aasm_py(["audit", "list", "--json", *options], gateway.home)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert isinstance(rows, list)
    return rows


def test_list_json_is_an_array_of_whole_records_in_the_order_of_the_calls(desk: Gateway) -> None:
    """`list --json` is chronological, and each object says who, what, decided how, by which rule, and how it ended."""
    rows = listed(desk)
    assert [(row["agent_id"], row["tool"], row["decision"], row["outcome"]) for row in rows] == [
        ("ada", "read_file", "allow", "returned"),
        ("ada", "delete_file", "deny", "refused"),
        ("ada", "search", "allow", "returned"),
        ("bob", "read_file", "allow", "returned"),
        ("bob", "search", "allow", "returned"),
    ]
    denied = rows[1]
    assert denied["rule"] == "no-deletions"
    assert "Nobody deletes here." in denied["reason"]
    assert {"seq", "time", "run_id"} <= denied.keys()
    assert [row["seq"] for row in rows] == sorted(row["seq"] for row in rows)


@pytest.mark.parametrize(
    ("options", "tools"),
    [
        (["--agent", "bob"], ["read_file", "search"]),
        (["--tool", "read_file"], ["read_file", "read_file"]),
        (["--decision", "deny"], ["delete_file"]),
        (["--since", "10m"], ["read_file", "delete_file", "search", "read_file", "search"]),
        (["--since", "2999-01-01T00:00:00Z"], []),
        (["--run", "run-0000000000000000"], []),
        (["--agent", "ada", "--decision", "allow"], ["read_file", "search"]),
        (["--limit", "2"], ["read_file", "search"]),
        (["--limit", "0"], ["read_file", "delete_file", "search", "read_file", "search"]),
    ],
)
def test_each_filter_keeps_what_fits(desk: Gateway, options: list[str], tools: list[str]) -> None:
    """Filters combine; the limit keeps the latest; `list` and `count` agree."""
    assert [row["tool"] for row in listed(desk, *options)] == tools
    if "--limit" not in options:
        counted = aasm_py(["audit", "count", *options], desk.home)
        assert (counted.returncode, counted.stdout) == (0, f"{len(tools)}\n")


def test_since_cuts_between_two_calls(start_gateway: StartGateway) -> None:
    """A moment with a fraction of a second and an offset divides the log there."""
    gateway = start_gateway()
    make_calls(gateway, ["before"])
    moment = datetime.now(timezone(timedelta(hours=5, minutes=30))).isoformat()
    make_calls(gateway, ["after"])
    assert [row["tool"] for row in listed(gateway, "--since", moment)] == ["after"]


def test_more_records_than_a_page_are_all_listed(start_gateway: StartGateway) -> None:
    """`--limit 0` pages through the whole log without a gap or a record twice."""
    gateway = start_gateway()
    make_calls(gateway, [f"tool_{number}" for number in range(1100)])
    assert [row["tool"] for row in listed(gateway, "--limit", "0")] == [f"tool_{number}" for number in range(1100)]
    assert len(listed(gateway, "--limit", "1050")) == 1050


def test_the_table_in_a_pipe_is_plain_and_whole(desk: Gateway) -> None:
    """Without a terminal there is one line a record, nothing cut, no colour, no blanks at the end."""
    result = aasm_py(["audit", "list"], desk.home)
    lines = result.stdout.splitlines()
    assert result.returncode == 0
    assert len(lines) == 6
    assert lines[0].split() == ["seq", "time", "agent", "tool", "decision", "rule", "outcome", "reason"]
    assert "Nobody deletes here." in lines[2]
    assert [line for line in lines if line != line.rstrip()] == []
    assert "\x1b" not in result.stdout


def test_the_table_on_a_terminal_has_colour_and_json_never(desk: Gateway) -> None:
    """Colour is for tables only, and NO_COLOR takes it away."""
    colour = {"FORCE_COLOR": "1", "COLUMNS": "100"}
    assert "\x1b[" in aasm_py(["audit", "list"], desk.home, environ=colour).stdout
    assert "\x1b" not in aasm_py(["audit", "list", "--json"], desk.home, environ=colour).stdout
    plain = aasm_py(["audit", "list"], desk.home, environ={**colour, "NO_COLOR": "1"}).stdout
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)


def test_what_an_agent_names_cannot_steer_the_terminal(start_gateway: StartGateway) -> None:
    """Control characters in a tool's name are shown as escapes, in the table and in the tail."""
    gateway = start_gateway()
    make_calls(gateway, ["\x1b[2Jwiped\r\nfake"])
    shown = aasm_py(["audit", "list"], gateway.home).stdout
    assert "\x1b" not in shown
    assert r"\x1b[2Jwiped\r\nfake" in shown


def test_an_empty_log_says_so(gateway: Gateway) -> None:
    """No records is no error: a line for people, an empty array for programs, zero."""
    assert aasm_py(["audit", "list"], gateway.home).stdout == "no records\n"
    assert listed(gateway) == []
    assert json.loads(aasm_py(["audit", "count", "--json"], gateway.home).stdout) == {"count": 0}


def test_a_reader_that_goes_away_is_no_error(start_gateway: StartGateway) -> None:
    """`aasm-py audit list | head -1` prints one line and nothing on standard error."""
    gateway = start_gateway()
    make_calls(gateway, [f"tool_{number}" for number in range(600)])
    result = subprocess.run(
        f"'{program('aasm-py')}' audit list --limit 0 | head -1",
        shell=True,
        env=clean_environment(AASM_HOME=str(gateway.home)),
        cwd=gateway.home.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "'yesterday' is no moment; write 10m"),
        (["--decision", "maybe"], "--decision must be one of: allow, deny, redact, approve"),
        (["--limit", "-1"], "--limit must be a whole number, 0 or more, not '-1'"),
    ],
)
def test_wrong_usage_is_named(home: Path, arguments: list[str], said: str) -> None:
    """A value that cannot be used ends with a message that says what can."""
    result = aasm_py(["audit", "list", *arguments], home)
    assert (result.returncode, result.stdout) == (2, "")
    assert said in result.stderr


class Tail:
    """`aasm-py audit tail` as it runs; `lines` waits for what it prints."""

    def __init__(self, home: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [program("aasm-py"), "audit", "tail", *options],
            env=clean_environment(AASM_HOME=str(home)),
            cwd=home.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._text = ""

    def lines(self, number: int, seconds: float = 20.0) -> list[str]:
        """Return what was printed once that is `number` lines; raise AssertionError when it does not become so many."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while self._text.count("\n") < number:
            assert time.monotonic() < deadline, f"only {self._text!r} after {seconds} s"
            try:
                self._text += os.read(self.process.stdout.fileno(), 65536).decode()
            except BlockingIOError:
                time.sleep(0.02)
        return self._text.splitlines()

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return exit code and standard error."""
        self.process.send_signal(signal.SIGINT)
        _, error = self.process.communicate(timeout=20)
        return self.process.returncode, error


@pytest.fixture
def tails() -> Iterator[list[Tail]]:
    running: list[Tail] = []
    yield running
    for tail in running:
        if tail.process.poll() is None:
            tail.process.kill()
            tail.process.communicate()


def test_tail_prints_what_comes_and_ends_quietly_with_ctrl_c(desk: Gateway, tails: list[Tail]) -> None:
    """The backlog first, then each call as it comes, one JSON object a line; Ctrl-C ends it with 130 and no word."""
    tail = Tail(desk.home, "--json", "--limit", "1")
    tails.append(tail)
    assert json.loads(tail.lines(1)[0])["tool"] == "search"
    make_calls(desk, ["fresh"])
    row = json.loads(tail.lines(2)[1])
    assert (row["tool"], row["outcome"]) == ("fresh", "returned")
    assert tail.interrupt() == (130, "")


def test_tail_goes_on_when_the_gateway_comes_back(desk: Gateway, tails: list[Tail]) -> None:
    """A gateway that goes away is named once on standard error; its records are printed when it is back."""
    tail = Tail(desk.home, "--limit", "1", "--tool", "search")
    tails.append(tail)
    tail.lines(1)
    desk.stop()
    time.sleep(1.5)
    desk.start()
    make_calls(desk, ["elsewhere", "search"], agent="carol")
    assert "carol" in tail.lines(2)[1]
    code, error = tail.interrupt()
    assert code == 130
    assert len(error.splitlines()) == 1
    assert "waiting for it" in error


def test_verify_agrees_with_an_untouched_log_and_names_a_change(desk: Gateway) -> None:
    """`verify` exits 0 for a whole chain; one changed byte makes it 1, with the file's name."""
    desk.audit()
    whole = aasm_py(["audit", "verify"], desk.home)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    desk.stop()
    (segment,) = (desk.home / "audit").glob("*.log")
    text = segment.read_bytes()
    assert text.count(b"no-deletions") >= 1
    segment.write_bytes(text.replace(b"no-deletions", b"no-deletionz", 1))
    changed = aasm_py(["audit", "verify"], desk.home)
    assert changed.returncode == 1
    assert segment.name in changed.stdout + changed.stderr
