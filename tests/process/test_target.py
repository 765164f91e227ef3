"""What is known of a command before it runs: real files, looked at and never started."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from agent_assembly.core.target import Files, Target, examine, is_python_name


@pytest.fixture
def environ() -> dict[str, str]:
    return {
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), "/usr/bin", "/bin"]),
        "PYTHONPATH": "/boot",
        "AASM_RUN_ID": "run-0123456789abcdef",
    }


def look(environ: dict[str, str], *command: str) -> Target:
    return examine(command, environ, Files())


def script(path: Path, first_line: str) -> str:
    path.write_text(f"{first_line}\nprint('hello')\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "arguments", [["-c", "x"], ["-m", "mod", "-I"], ["agent.py", "-I"], ["-"], [], ["-u", "-Wi", "x"]]
)
def test_a_plain_python_is_governed(environ: dict[str, str], arguments: list[str]) -> None:
    """Only the interpreter's own flags count, not those of the program behind them."""
    target = look(environ, "python", *arguments)
    assert (target.kind, target.governed) == ("python", "yes")
    assert target.interpreter == os.path.join(os.path.dirname(sys.executable), "python")


@pytest.mark.parametrize(
    "flags",
    [["-I"], ["-E"], ["-S"], ["-uI"], ["-sE"], ["-X", "utf8", "-S"], ["-Xutf8", "-I"], ["-W", "error", "-E"], ["-BIc"]],
)
def test_flags_that_keep_the_bootstrap_out_are_found(environ: dict[str, str], flags: list[str]) -> None:
    """-I, -E and -S, alone, in a cluster, or behind options that take a value."""
    target = look(environ, "python", *flags, "agent.py")
    assert target.governed == "no"
    assert target.remedy.startswith("start it without -")


def test_safe_path_does_not_keep_the_bootstrap_out(environ: dict[str, str]) -> None:
    """-P and -s leave PYTHONPATH and sitecustomize alone."""
    assert look(environ, "python", "-P", "-s", "agent.py").governed == "yes"


@pytest.mark.parametrize(
    ("prefix", "governed"),
    [
        (["env"], "yes"),
        (["env", "A=1", "B=2"], "yes"),
        (["env", "--", "A=1"], "yes"),
        (["env", "-u", "OTHER"], "yes"),
        (["env", "-C", "/tmp"], "yes"),
        (["env", "-i"], "no"),
        (["env", "-"], "no"),
        (["env", "-u", "PYTHONPATH"], "no"),
        (["env", "-uPYTHONPATH"], "no"),
        (["env", "--unset=AASM_RUN_ID"], "no"),
        (["env", "PYTHONPATH=/elsewhere"], "no"),
        (["nice"], "yes"),
        (["nice", "-n", "5"], "yes"),
        (["nice", "-5"], "yes"),
        (["nohup"], "yes"),
        (["timeout", "5"], "yes"),
        (["timeout", "-k", "1", "--foreground", "5s"], "yes"),
        (["timeout", "--unheard-of", "5"], "maybe"),
        (["nohup", "nice", "timeout", "5"], "yes"),
    ],
)
def test_wrappers_are_looked_through(environ: dict[str, str], prefix: list[str], governed: str) -> None:
    """What stands before the Python is followed to it; what cannot be followed makes the answer open."""
    target = look(environ, *prefix, "python", "agent.py")
    assert target.governed == governed
    assert os.path.basename(target.path) == prefix[0]


@pytest.mark.parametrize(
    "words", [["env", "-S", "python -I x"], ["env", "-Spython -E x"], ["timeout", "5", "python", "-S"]]
)
def test_flags_are_found_behind_wrappers(environ: dict[str, str], words: list[str]) -> None:
    """A wrapper hides nothing."""
    assert look(environ, *words).governed == "no"


def test_a_shell_may_start_anything(environ: dict[str, str], tmp_path: Path) -> None:
    """Shells and shell scripts are open: governed if a Python program starts."""
    assert look(environ, "sh", "-c", "python agent.py").governed == "maybe"
    target = look(environ, script(tmp_path / "run", "#!/bin/sh"))
    assert (target.kind, target.governed) == ("script", "maybe")


@pytest.mark.parametrize(
    ("line", "governed"),
    [
        ("#!{python}", "yes"),
        ("#!{python} -u", "yes"),
        ("#!{python} -I", "no"),
        ("#! {python} -sE", "no"),
        ("#!/usr/bin/env python", "yes"),
        ("#!/usr/bin/env -S python -I", "no"),
        ("#!/usr/bin/env -i python", "no"),
        ("#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''", "yes"),
        ("#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''", "yes"),
    ],
)
def test_first_lines_are_read(environ: dict[str, str], tmp_path: Path, line: str, governed: str) -> None:
    """Console scripts lead to their Python, also in the form that installers give those with long paths."""
    target = look(environ, script(tmp_path / "tool", line.format(python=sys.executable)))
    assert target.governed == governed
    assert target.kind.endswith("script")
    assert target.path == str(tmp_path / "tool")


def test_a_first_line_that_leads_nowhere(environ: dict[str, str], tmp_path: Path) -> None:
    """An interpreter that is not there is named, with the exit code that a shell gives."""
    target = look(environ, script(tmp_path / "tool", "#!/no/such/python"))
    assert target.kind == "missing"
    assert target.code == 126
    assert "/no/such/python" in target.reason


def test_a_shim_is_python_without_saying_which(environ: dict[str, str], tmp_path: Path) -> None:
    """pyenv's shims are shell scripts named like Python: their flags count, their interpreter is open."""
    shim = script(tmp_path / "python3", "#!/usr/bin/env bash")
    assert look(environ, shim, "agent.py").governed == "yes"
    assert look(environ, shim, "agent.py").interpreter is None
    assert look(environ, shim, "-I", "agent.py").governed == "no"


def test_a_python_by_another_name(environ: dict[str, str], tmp_path: Path) -> None:
    """A link with a name of its own is followed for what it is, and kept as it was written."""
    link = tmp_path / "my-python"
    link.symlink_to(sys.executable)
    target = look(environ, str(link), "agent.py")
    assert (target.kind, target.interpreter) == ("python", str(link))


def test_other_programs_are_not_governed(environ: dict[str, str]) -> None:
    """A program that is no Python, and not known to start one, is told apart from one that might."""
    target = look(environ, shutil.which("ls") or "ls")
    assert (target.kind, target.governed) == ("program", "no")


@pytest.mark.parametrize("name", ["sudo", "docker", "opentelemetry-instrument"])
def test_what_would_lose_the_bootstrap_says_how_to_keep_it(environ: dict[str, str], tmp_path: Path, name: str) -> None:
    """Programs that drop the environment, or put a sitecustomize before ours, are refused with the right order."""
    target = look(environ, script(tmp_path / name, "#!/bin/sh"), "python", "agent.py")
    assert target.governed == "no"
    assert "aasm-run" in target.remedy


def test_what_is_missing_has_the_shells_exit_code(environ: dict[str, str], tmp_path: Path) -> None:
    """127 for what is not found, 126 for what cannot be executed."""
    plain = tmp_path / "plain"
    plain.write_text("x")
    assert look(environ, "no-such-command").code == 127
    assert look(environ, str(plain)).code == 126
    assert look(environ, str(tmp_path)).code == 126
    assert look({**environ, "PATH": str(tmp_path)}, "plain").code == 126
    assert look(environ, "").code == 127


def test_a_loop_of_first_lines_ends(environ: dict[str, str], tmp_path: Path) -> None:
    """A script that names itself as its interpreter is no reason to hang."""
    path = tmp_path / "loop"
    assert look(environ, script(path, f"#!{path}")).kind == "missing"


def test_text_without_a_first_line_is_no_program(environ: dict[str, str], tmp_path: Path) -> None:
    """The kernel would refuse it, and so do we."""
    assert look(environ, script(tmp_path / "notes", "hello")).governed == "no"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        *((name, True) for name in ("python", "python3", "python3.12", "python3.13t", "python3d", "pypy3.10")),
        *((name, False) for name in ("pythonista", "python-config", "ipython", "python3.12-config", "pyth")),
    ],
)
def test_names_of_pythons(name: str, answer: bool) -> None:
    """Pythons are known by name: version, threading and debugging suffixes included."""
    assert is_python_name(name) is answer
