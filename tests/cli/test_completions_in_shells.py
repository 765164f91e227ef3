"""Completions in the shells themselves: TAB offers what fits, and leaves a wrapped command to itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.gateway import clean_environment
from support.programs import search_path
from support.shells import CompletingShell, ask_fish, missing

ROOT = Path(__file__).resolve().parents[2]
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")

# A program with completions of its own, in each shell's way.
WRAPPED = {
    "bash": '_frobnicate() { COMPREPLY=($(compgen -W "polish sand" -- "$2")); }\ncomplete -F _frobnicate frobnicate\n',
    "zsh": "_frobnicate() { compadd polish sand }\ncompdef _frobnicate frobnicate\n",
    "fish": "complete -c frobnicate -f -a 'polish sand'\n",
}
KINDS = ("bash", "bash with bash-completion", "zsh", "fish")

# The line, what is offered among other things, and what must not be.
OPTIONS = [
    ("aasm-run --pol", {"--policy"}, set()),
    ("aasm-run --", {"--policy", "--no-start", "--quiet", "--enforcement-mode"}, {"frobnicate", "--fix"}),
    ("aasm-py audit list --", {"--decision", "--since", "--json"}, {"--policy"}),
    ("aasm-py audit list --dec", {"--decision"}, set()),
    ("aasm-py doctor --", {"--fix", "--report", "--json"}, {"--policy"}),
    ("aasm-py explain --", {"--json", "--policy", "--mode"}, {"--fix", "--explain"}),
    ("aasm start --", {"--min-enforcement", "--policy", "--foreground"}, {"--detached"}),
]
VALUES = [
    ("aasm-run --mode ", {"auto", "sdk-only", "proxy", "ebpf"}, {"agent.py", "--policy", "frobnicate"}),
    ("aasm-run --mode=s", {"sdk-only"}, {"auto"}),
    ("aasm-run --gateway-url http://127.0.0.1:1/a=b --mode ", {"auto", "sdk-only"}, {"frobnicate"}),
    ("aasm-run --children=", {"inherit", "strict", "off"}, {"agent.py"}),
    ("aasm-run --policy ", {"policy.yaml", "other.yml", "sub/"}, {"agent.py", "notes.txt"}),
    ("aasm-run --policy=pol", {"policy.yaml"}, {"other.yml"}),
    ("aasm-run --policy not", {"notes.txt"}, set()),
    ("aasm-run --home ", {"sub/"}, {"agent.py", "policy.yaml"}),
    ("aasm-run --agent-id ", set(), {"agent.py", "frobnicate", "--policy"}),
    ("aasm-py audit list --decision ", {"allow", "deny", "redact", "approve"}, {"agent.py"}),
    ("aasm-py doctor --report not", {"notes.txt"}, set()),
    ("aasm-py completions ", {"bash", "zsh", "fish"}, {"agent.py"}),
    ("aasm-py explain --mode ", {"auto", "sdk-only"}, {"frobnicate"}),
    ("aasm start --min-enforcement ", {"enforce", "observe", "disabled"}, set()),
]
COMMANDS = [
    ("aasm-py ", {"audit", "doctor", "explain", "gateway", "agents", "completions"}, {"agent.py", "list"}),
    ("aasm-py audit ", {"list", "count", "tail", "verify"}, {"doctor", "agent.py"}),
    ("aasm-py au", {"audit"}, {"agents"}),
    ("aasm ", {"start", "stop", "status", "audit"}, {"completions"}),
    ("aasm audit ", {"verify"}, {"start"}),
]
A_WRAPPED_COMMAND = [
    ("aasm-run frobn", {"frobnicate"}, set()),
    ("aasm-run -- frobn", {"frobnicate"}, set()),
    ("aasm-run frobnicate ", {"polish", "sand"}, {"--policy", "--quiet"}),
    ("aasm-run -- frobnicate pol", {"polish"}, {"--policy", "policy.yaml"}),
    ("aasm-run --policy policy.yaml -q frobnicate sa", {"sand"}, set()),
    ("aasm-run --policy=policy.yaml --agent-id a.b -- frobnicate ", {"polish", "sand"}, {"--policy"}),
    ("aasm-run frobnicate --pol", set(), {"--policy"}),
    ("aasm-run -- frobnicate --q", set(), {"--quiet"}),
    ("aasm-run frobnicate -- --pol", set(), {"--policy"}),
    ("aasm-run cat agen", {"agent.py"}, set()),
    ("aasm-run -q -- cat agen", {"agent.py"}, set()),
    ("aasm-py explain frobn", {"frobnicate"}, set()),
    ("aasm-py explain --policy policy.yaml frobnicate ", {"polish", "sand"}, {"--policy"}),
    ("aasm-py doctor -- frobn", {"frobnicate"}, set()),
    ("aasm-py doctor -- frobnicate ", {"polish", "sand"}, {"--fix"}),
    ("aasm-py doctor --json -- frobnicate po", {"polish"}, set()),
    ("aasm-py doctor -- frobnicate --f", set(), {"--fix"}),
    ("aasm-py doctor -- cat agen", {"agent.py"}, set()),
]

Ask = Callable[[str], frozenset[str]]


def needs(kind: str) -> None:
    """Skip the test where that shell, or what it is to use, is not there."""
    reason = missing(kind.split()[0])
    if reason is None and "bash-completion" in kind and not BASH_COMPLETION.exists():
        reason = "bash-completion is not installed"
    if reason is not None:
        pytest.skip(reason)


def make_directory(directory: Path) -> Path:
    """A directory with files of several kinds; the program to wrap is beside it."""
    (directory / "sub").mkdir(parents=True)
    for name in ("policy.yaml", "other.yml", "notes.txt", "agent.py", "my file.yaml"):
        (directory / name).touch()
    programs = directory.with_name("programs")
    programs.mkdir()
    (programs / "frobnicate").write_text("#!/bin/sh\n")
    (programs / "frobnicate").chmod(0o755)
    return directory


def path_variable(directory: Path) -> str:
    """The search path of a shell that works in `directory`: the programs under test come first."""
    return search_path(directory.with_name("programs"))


@pytest.fixture(scope="module", params=KINDS)
def ask(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """What a shell offers for a line, once it has read what people are told to put into its start-up file."""
    kind: str = request.param
    needs(kind)
    directory = make_directory(tmp_path_factory.mktemp("shell") / "work")
    shell = kind.split()[0]
    environ = {"PATH": path_variable(directory)}
    if shell == "fish":
        # One fish is started for each question; what `aasm-py completions fish | source` would read is read once.
        text = subprocess.run(
            ["aasm-py", "completions", "fish"],
            env=clean_environment(**environ),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        yield lambda line: frozenset(ask_fish(text + WRAPPED["fish"], line, directory, environ))
        return
    first = f". {BASH_COMPLETION}\n" if kind != shell and shell == "bash" else ""
    setup = f'{first}eval "$(aasm-py completions {shell})"\n{WRAPPED[shell]}'
    with CompletingShell(shell, setup, directory, environ) as terminal:
        yield lambda line: terminal.complete(line).candidates


def check(ask: Ask, row: tuple[str, set[str], set[str]]) -> None:
    line, offered, others = row
    found = ask(line)
    assert offered <= found, f"{line!r} offers {sorted(found)}"
    assert not others & found, f"{line!r} offers {sorted(found)}"


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row[0])
def test_options_are_offered(ask: Ask, row: tuple[str, set[str], set[str]]) -> None:
    """After a dash come the options of the command that was named, and of no other."""
    check(ask, row)


@pytest.mark.parametrize("row", VALUES, ids=lambda row: row[0])
def test_values_are_offered(ask: Ask, row: tuple[str, set[str], set[str]]) -> None:
    """An option that takes a value is followed by its choices, by files that fit, by directories, or by nothing."""
    check(ask, row)


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: row[0])
def test_commands_are_offered(ask: Ask, row: tuple[str, set[str], set[str]]) -> None:
    """Where a command is due, those that exist there are offered."""
    check(ask, row)


@pytest.mark.parametrize("row", A_WRAPPED_COMMAND, ids=lambda row: row[0])
def test_a_wrapped_command_is_completed_as_if_it_stood_alone(ask: Ask, row: tuple[str, set[str], set[str]]) -> None:
    """Its name, its own completions and its files are offered, and from its name on no option of ours."""
    check(ask, row)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fish"])
def test_names_with_spaces_are_quoted(kind: str, tmp_path: Path) -> None:
    """A file that holds a space is put into the line so that the shell reads one word."""
    needs(kind)
    shell = kind.split()[0]
    directory = make_directory(tmp_path / "work")
    first = f". {BASH_COMPLETION}\n" if kind != shell else ""
    setup = f'{first}eval "$(aasm-py completions {shell})"\n'
    with CompletingShell(shell, setup, directory, {"PATH": path_variable(directory)}) as terminal:
        assert terminal.complete("aasm-run --policy my").line == r"aasm-run --policy my\ file.yaml "
        assert terminal.complete("aasm-run --policy=my").line == r"aasm-run --policy=my\ file.yaml "
        assert terminal.complete('aasm-run --policy "my f').line == 'aasm-run --policy "my file.yaml" '
        assert terminal.complete("aasm-run cat my").line == r"aasm-run cat my\ file.yaml "


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_tab_starts_no_program(shell: str, tmp_path: Path) -> None:
    """Completing our options and commands needs none of our programs, nor any other: there is no search path."""
    needs(shell)
    directory = make_directory(tmp_path / "work")
    setup = f'eval "$(aasm-py completions {shell})"\n'
    with CompletingShell(shell, setup, directory, {"PATH": path_variable(directory)}) as terminal:
        terminal.run("PATH=/nowhere")
        assert terminal.complete("aasm-py audit li").line == "aasm-py audit list "
        assert terminal.complete("aasm-run --mode=s").line == "aasm-run --mode=sdk-only "
        assert terminal.complete("aasm-run --policy=pol").line == "aasm-run --policy=policy.yaml "


def test_zsh_finds_them_by_itself(tmp_path: Path) -> None:
    """Where the files are on `fpath`, compinit alone makes them work."""
    needs("zsh")
    directory = make_directory(tmp_path / "work")
    setup = f"fpath=({ROOT / 'completions' / 'zsh'} $fpath)\ncompinit -u -D\n{WRAPPED['zsh']}"
    with CompletingShell("zsh", setup, directory, {"PATH": path_variable(directory)}) as terminal:
        assert {"list", "verify"} <= terminal.complete("aasm-py audit ").candidates
        assert terminal.complete("aasm-run --mode=s").line == "aasm-run --mode=sdk-only "
        assert terminal.complete("aasm-run frobnicate po").line == "aasm-run frobnicate polish "
        assert terminal.complete("aasm statu").line == "aasm status "


def test_bash_completion_finds_them_by_itself(tmp_path: Path) -> None:
    """Where the files are in a directory of bash-completion, they are loaded at the first TAB."""
    needs("bash with bash-completion")
    directory = make_directory(tmp_path / "work")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "completions").symlink_to(ROOT / "completions" / "bash")
    environ = {"PATH": path_variable(directory), "BASH_COMPLETION_USER_DIR": str(tmp_path / "data")}
    with CompletingShell("bash", f". {BASH_COMPLETION}\n{WRAPPED['bash']}", directory, environ) as terminal:
        assert {"list", "verify"} <= terminal.complete("aasm-py audit ").candidates
        assert terminal.complete("aasm-run --mode=s").line == "aasm-run --mode=sdk-only "
        assert terminal.complete("aasm-run frobnicate po").line == "aasm-run frobnicate polish "
        assert terminal.complete("aasm statu").line == "aasm status "


def test_zsh_without_compinit_says_what_is_missing(tmp_path: Path) -> None:
    """The start-up file goes on, and one line names what to put above."""
    needs("zsh")
    environ = clean_environment(PATH=path_variable(tmp_path), HOME=str(tmp_path))
    command = ["zsh", "-f", "-c", 'eval "$(aasm-py completions zsh)"; print went on']
    result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert result.stdout == "went on\n"
    assert len(result.stderr.splitlines()) == 1
    assert "autoload -Uz compinit && compinit" in result.stderr


HOSTILE = (
    'It\'s "q" `touch pwned` $(touch pwned) (touch pwned) ${HOME} $HOME \\ \\n [x] ]y[ : %d %F{red} {a,b} ; touch p &'
    " | <in> *? !! #c ~ FN PROGRAM AT\n\tnext ]: :{touch pwned}: 'end\x1b[31m"
)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_no_help_text_breaks_a_script_or_runs(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in a description is shown as it is, on one line, and never read by the shell."""
    needs(shell)
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from command_model import Command, Option, Value

    from completions import WRITERS

    made = Command(
        "hostile",
        HOSTILE,
        (
            Option(("--flag", "-f"), HOSTILE),
            Option(("--file",), HOSTILE, Value("file", endings=(".yaml",))),
            Option(("--pick",), HOSTILE, Value("choice", choices=("a", "b"))),
            Option(("--text",), HOSTILE, Value("text")),
        ),
        (Command("inner", HOSTILE, (Option(("--other",), HOSTILE),)), Command("outer", HOSTILE, wraps=True)),
    )
    directory = make_directory(tmp_path / "work")
    before = sorted(os.listdir(directory))
    text = WRITERS[shell](made)
    rows = {
        "hostile ": {"inner", "outer"},
        "hostile -": {"--flag", "--file", "--pick", "--text"},
        "hostile --pick ": {"a", "b"},
        "hostile --file pol": {"policy.yaml"},
        "hostile inner --o": {"--other"},
        "hostile outer cat agen": {"agent.py"},
    }
    environ = {"PATH": path_variable(directory)}
    if shell == "fish":
        assert ask_fish(text, "hostile i", directory, environ) == {"inner": made.help}
        for line, words in rows.items():
            assert words <= ask_fish(text, line, directory, environ).keys()
    else:
        with CompletingShell(shell, text, directory, environ) as terminal:
            for line, words in rows.items():
                assert words <= terminal.complete(line).candidates
    assert sorted(os.listdir(directory)) == before


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_terminal_tells_what_tab_did(shell: str, tmp_path: Path) -> None:
    """The helper of these tests sees candidates, the one that was put into the line, and that there is none."""
    needs(shell)
    setup = {"bash": "complete -W 'one other' f", "zsh": "_f() { compadd one other }; compdef _f f"}[shell]
    directory = make_directory(tmp_path / "work")
    with CompletingShell(shell, setup, directory) as terminal:
        both = terminal.complete("f o")
        assert (both.line, both.candidates) == ("f o", {"one", "other"})
        one = terminal.complete("f on")
        assert (one.line, one.candidates) == ("f one ", {"one"})
        none = terminal.complete("f x")
        assert (none.line, none.candidates) == ("f x", set())
        terminal.run("f() { :; }")
        assert terminal.complete("f on").line == "f one "
