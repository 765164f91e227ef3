"""What people read when something is wrong, and what tables look like, wherever they are printed."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.calls import make_calls
from support.gateway import Gateway
from support.snapshots import Terminal, at_terminal, check_snapshot, in_pipe, in_shell, looks

MISUSES = {
    "aasm-py": [
        "adit",
        "audit lst",
        "list",
        "start",
        "frobnicate",
        "--foo",
        "--versoin",
        "--",
        "audit --",
        "audit list --decison deny",
        "audit list --dec deny",
        "audit list --foo",
        "audit list -x",
        "audit list --agent",
        "audit list --agent --json",
        "audit list --json=yes",
        "audit list everything",
        "audit list --decision dney",
        "audit list --decision maybe",
        "audit list --limit -1",
        "audit list --limit ten",
        "audit list --since yesterday",
        "audit list --since ''",
        "audit count --limit 3",
        "audit verify now",
        "agents --jsn",
        "gateway strat",
        "gateway start --prot 1",
        "gateway start --port 99999",
        "gateway start --min-enforcement enforc",
        "explain",
        "explain --polcy x python",
        "doctor --jsn",
        "completions powershell",
    ],
    "aasm-run": [
        "",
        "--",
        "--quiet",
        "--polcy policy.yaml python agent.py",
        "--policy",
        "--policy --explain python agent.py",
        "--agent-id -- python agent.py",
        "--agent_id support python agent.py",
        "--foo python agent.py",
        "-x python agent.py",
        "--quiet=yes python agent.py",
        "--json python agent.py",
        "--mode sdk python agent.py",
        "--mode fast python agent.py",
        "--enforcement-mode=enforc python agent.py",
        "--on-deny rais python agent.py",
        "--depth -1 python agent.py",
        "--gateway-port port python agent.py",
        "--gateway-url localhost python agent.py",
        "--api-kye secret-of-mine python agent.py",
    ],
}
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
    reason: Nobody deletes here… 東京 excepted.
"""
LIST = ["aasm-py", "audit", "list"]
# Times and sequence numbers differ from run to run, their width does not.
HIDDEN = {
    r"\b\d\d:\d\d:\d\d\b": "HH:MM:SS",
    r"^ *((?:\[(?:/|dim)\])?) *\d+(?= )": r" \1NN",
}


@pytest.fixture
def desk(start_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway after three calls: one allowed, one denied, one whose name is long and not ASCII."""
    gateway = start_gateway(policy=POLICY)
    make_calls(gateway, ["read_file", "delete_file", "suche_größere_aufträge_東京_mit_langem_namen"], agent="ada")
    gateway.audit()
    return gateway


@pytest.mark.parametrize("program", MISUSES)
def test_each_misuse_is_answered_as_it_was_looked_at(home: Path, program: str) -> None:
    """What is unknown, near what, and where to read on."""
    lines = []
    for words in MISUSES[program]:
        seen = in_shell(f"{program} {words}", looks(home))
        lines.append(f"$ {program} {words}".rstrip() + f"\n[{seen.code}] {seen.stdout}{seen.stderr}")
    check_snapshot(f"misuse-{program}", "".join(lines))


@pytest.mark.parametrize(
    ("program", "words"), [(program, words) for program, all_of_them in MISUSES.items() for words in all_of_them]
)
def test_a_misuse_is_one_line_on_standard_error_and_exit_code_2(home: Path, program: str, words: str) -> None:
    """With the program's name and what to type next; nothing on standard output, and nothing is started."""
    seen = in_shell(f"{program} {words}", looks(home))
    assert (seen.code, seen.stdout) == (2, "")
    (line,) = seen.stderr.splitlines()
    assert re.fullmatch(r"aasm-(py|run): [^\n]+[;?] see: aasm-(py|run)( [a-z]+)* --help", line)
    assert "secret-of-mine" not in line
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "environ", [{"COLUMNS": "40"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}], ids=str
)
@pytest.mark.parametrize("words", ["aasm-py adit", "aasm-run --polcy"])
def test_a_misuse_reads_the_same_everywhere(home: Path, words: str, environ: dict[str, str]) -> None:
    """No terminal makes a frame, a colour or a second line of it."""
    assert at_terminal(words.split(), looks(home, **environ), 40) == in_pipe(words.split(), looks(home))


@pytest.mark.parametrize(
    "words", ["aasm-py 'a\033[31m\nb'", "aasm-run '--a\033[31m\nb'", "aasm-py audit list $'\\xff\\xfe'"]
)
def test_what_was_typed_cannot_steer_the_terminal(home: Path, words: str) -> None:
    """Controls and broken text are shown as escapes, on one line."""
    seen = in_shell(words, looks(home))
    assert seen.code == 2
    (line,) = seen.stderr.splitlines()
    assert line.isprintable()


def test_text_that_is_no_text_finds_nothing(gateway: Gateway) -> None:
    """A broken byte in a filter is looked for, and not found."""
    seen = in_shell("aasm-py audit list --agent $'\\xff'", looks(gateway.home))
    assert seen == (0, "no records\n", "")


@pytest.mark.parametrize(
    ("name", "columns", "environ"),
    [
        ("80", 80, {}),
        ("40", 40, {}),
        ("200", 200, {}),
        ("no-color", 80, {"NO_COLOR": "1"}),
        ("dumb", 80, {"TERM": "dumb"}),
        ("ascii", 80, {"LC_ALL": "C"}),
        ("columns-40", 80, {"COLUMNS": "40"}),
        ("columns-0", 80, {"COLUMNS": "0"}),
        ("columns-endless", 80, {"COLUMNS": "9" * 30}),
    ],
)
def test_the_table_at_a_terminal(desk: Gateway, name: str, columns: int, environ: dict[str, str]) -> None:
    """It is as wide as the terminal at most, cuts names before it leaves columns out, and gives reasons."""
    seen = at_terminal(LIST, looks(desk.home, **environ), columns)
    check_snapshot(f"list-terminal-{name}", seen.text(), HIDDEN)
    assert (seen.stdout if environ.get("LC_ALL") == "C" else "").isascii()


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("pipe", "aasm-py audit list"),
        ("pipe-ascii", "LC_ALL=C aasm-py audit list"),
        ("pipe-columns-40", "COLUMNS=40 aasm-py audit list"),
        ("closed-stdout", "aasm-py audit list >&-"),
        ("closed-stderr", "aasm-py audit list 2>&-"),
        ("closed-all", "aasm-py audit list <&- >&- 2>&-"),
        ("full-disk", "aasm-py audit list >/dev/full"),
        ("full-disk-json", "aasm-py audit list --json >/dev/full"),
        ("no-reader", "aasm-py audit list | true; echo ${PIPESTATUS[0]}"),
        ("head", "aasm-py audit list | head -1"),
        ("explain-full-disk", "aasm-run --explain python x.py >/dev/full"),
        ("explain-closed-stdout", "aasm-run --explain python x.py >&-"),
        ("explain-no-reader", "aasm-run --explain python x.py | true; echo ${PIPESTATUS[0]}"),
    ],
)
def test_the_table_without_a_terminal(desk: Gateway, name: str, script: str) -> None:
    """Whole lines in a pipe; where nothing can be printed, that is said, if anybody listens."""
    seen = in_shell(script, looks(desk.home))
    check_snapshot(f"list-{name}", seen.text(), HIDDEN)


def test_json_is_ascii_in_the_c_locale_and_says_the_same(desk: Gateway) -> None:
    """Programs read the same values from either."""
    plain = in_pipe([*LIST, "--json"], looks(desk.home, LC_ALL="C")).stdout
    assert plain.isascii()
    assert plain.encode().decode("ascii").count(r"\u6771\u4eac") > 0
    assert "東京" in in_pipe([*LIST, "--json"], looks(desk.home)).stdout


@pytest.mark.parametrize(
    "words", [["audit", "count"], ["audit", "list", "--limit", "0"], ["agents"], ["gateway", "status"]]
)
def test_who_waits_at_a_terminal_sees_for_what(desk: Gateway, words: list[str]) -> None:
    """A line on standard error, which is gone in the end, with the cursor back; in a pipe there is none."""
    desk.pause()
    try:
        with Terminal(["aasm-py", *words], looks(desk.home)) as terminal:
            terminal.wait_for("asking the gateway")
            seen = terminal.end()
        piped = in_pipe(["aasm-py", *words], looks(desk.home))
    finally:
        desk.resume()
    assert seen.code == piped.code == 1
    assert seen.stdout == piped.stdout == ""
    assert "asking" not in piped.stderr
    assert_clean(seen.stderr)
    assert seen.stderr.endswith(piped.stderr)
    assert len(piped.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["audit", "count"], ["gateway", "status"]])
def test_ctrl_c_leaves_the_terminal_clean(desk: Gateway, words: list[str]) -> None:
    """The line is gone, the cursor is back, no word is said, and the exit code is 130."""
    desk.pause()
    try:
        with Terminal(["aasm-py", *words], looks(desk.home)) as terminal:
            terminal.wait_for("asking the gateway")
            terminal.interrupt()
            seen = terminal.end()
    finally:
        desk.resume()
    assert (seen.code, seen.stdout) == (128 + signal.SIGINT, "")
    assert_clean(seen.stderr)
    assert seen.stderr.endswith(("\x1b[2K", "\x1b[?25h"))


def test_what_is_soon_done_needs_no_line(desk: Gateway) -> None:
    """At a terminal, a command that ends at once prints its result and nothing else."""
    for words in (["audit", "count"], ["audit", "verify"], ["gateway", "status"]):
        seen = at_terminal(["aasm-py", *words], looks(desk.home))
        assert (seen.code, seen.stderr) == (0, "")
        assert seen.stdout == in_pipe(["aasm-py", *words], looks(desk.home)).stdout or words == ["gateway", "status"]


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"TERM": ""}], ids=str)
def test_a_terminal_that_cannot_write_over_a_line_gets_none(desk: Gateway, environ: dict[str, str]) -> None:
    """As in a pipe: only what the command has to say."""
    desk.pause()
    try:
        seen = at_terminal(["aasm-py", "audit", "count"], looks(desk.home, **environ))
    finally:
        desk.resume()
    assert "asking" not in seen.stderr
    assert "\x1b" not in seen.stderr


def assert_clean(text: str) -> None:
    """Each cursor that was hidden is shown again, and the line is erased last."""
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.index("\x1b[?25l") < text.index("\x1b[?25h")
    assert text.rindex("\x1b[2K") > text.rindex("asking the gateway")
