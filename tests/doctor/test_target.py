"""The rows about the program that the doctor is asked about."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest
from support.doctor import diagnose, type_remedy
from support.gateway import Gateway, clean_environment
from support.interpreters import environment, installed, too_old
from support.own_python import OwnPython
from support.programs import BIN
from support.wheels import offline

from aasm_py.doctor.child import ask_python
from aasm_py.doctor.look import Look
from aasm_py.doctor.runner import run_checks
from aasm_py.doctor.subject import subject, without_flags
from aasm_py.doctor.target import CHECKS
from agent_assembly import __version__
from agent_assembly.diagnosis import Finding

TARGET = ["target", "target python", "target sdk", "target bootstrap"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that the command is typed in, with a script that must not be run."""
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "agent.py").write_text(f"open({str(directory / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(directory)
    return directory


def look(work: Path, *command: str | Path, **variables: str) -> dict[str, Finding]:
    """The rows about `command`, typed in `work`; its program has not run."""
    environ = clean_environment(AASM_HOME=str(work.parent), PATH=f"{BIN}:/usr/bin:/bin", **variables)
    rows = run_checks(Look(environ, [str(word) for word in command], seconds=20.0), CHECKS)
    assert not (work / "ran").exists()
    assert all(row.remedy for row in rows if row.status in ("warn", "fail"))
    return {row.check: row for row in rows}


def statuses(rows: dict[str, Finding]) -> list[str]:
    return [rows[name].status for name in TARGET]


def look_again(work: Path, remedy: str) -> dict[str, Finding]:
    """Ask about what the remedy says to type, which is a launch of the same program in another way."""
    launcher, *command = shlex.split(remedy.split("; or: ")[0])
    assert launcher == "aasm-run", remedy
    return look(work, *command)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_without_a_command_there_is_no_row() -> None:
    """These rows are about a command alone."""
    assert run_checks(Look({}), CHECKS) == []


@pytest.mark.parametrize(
    "words",
    [
        ["python", "agent.py"],
        ["python", "-u", "-W", "ignore", "-Xdev", "agent.py", "--option"],
        ["python", "-m", "agent"],
        ["python", "-V"],
        ["env", "A=1", "python", "agent.py"],
        ["nice", "-n", "1", "python", "agent.py"],
        ["./program"],
    ],
    ids=" ".join,
)
def test_a_command_that_is_governed(work: Path, words: list[str]) -> None:
    """All rows are well: what it is, its Python, the SDK in there, and the bootstrap armed in a child."""
    script(work / "program", f"#!{sys.executable}\nopen('ran', 'w')\n")
    rows = look(work, *words)
    assert statuses(rows) == ["ok"] * 4, rows
    assert sys.version.split()[0] in rows["target python"].found
    assert f"version {__version__}" in rows["target sdk"].found


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["python", "-I", "agent.py"], "-I makes Python ignore PYTHONPATH"),
        (["python", "-uE", "agent.py", "--x"], "-E makes Python ignore PYTHONPATH"),
        (["python", "-S", "-c", "pass"], "-S keeps Python from loading sitecustomize"),
        (["./isolated", "--x"], "-I makes Python ignore PYTHONPATH"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_flags_that_keep_the_bootstrap_out(work: Path, words: list[str], reason: str) -> None:
    """One row says which, and the remedy is the command without them."""
    script(work / "isolated", f"#!{sys.executable} -I\n")
    rows = look(work, *words)
    assert rows["target"].status == "fail"
    assert reason in rows["target"].found
    assert "aasm-run --allow-ungoverned " in rows["target"].remedy
    assert [rows[name].status for name in ("target python", "target sdk")] == ["ok", "ok"]
    assert (rows["target bootstrap"].status, rows["target bootstrap"].remedy) == ("skip", "")
    again = look_again(work, rows["target"].remedy)
    assert statuses(again) == ["ok"] * 4
    assert look(work, *words, AASM_ENFORCEMENT_MODE="observe")["target"].status == "warn"


@pytest.mark.parametrize(
    ("words", "found", "remedy"),
    [
        (["no-such-program"], "no-such-program: not found", ""),
        (["pythn", "agent.py"], "pythn: not found", "aasm-run python agent.py"),
        (["agent.py"], "agent.py: not found", "aasm-run python agent.py"),
        (["program"], "program: not found", "aasm-run ./program"),
        (["./agent.py"], "./agent.py: not executable", "aasm-run python ./agent.py"),
        (["./idle"], "./idle: not executable", "chmod +x ./idle"),
        (["python", "agnt.py"], "agnt.py is not there", "name the script as it is called: agent.py"),
        (["./orphan"], "names an interpreter that is not there", ""),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_command_that_cannot_be_started(work: Path, words: list[str], found: str, remedy: str) -> None:
    """Nothing else can be said of it; the near one is named."""
    for name in ("program", "idle"):
        script(work / name, f"#!{sys.executable}\n")
    (work / "idle").chmod(0o644)
    script(work / "orphan", "#!/no/such/python\n")
    rows = look(work, *words)
    assert rows["target"].status == "fail"
    assert found in rows["target"].found
    assert rows["target"].remedy.startswith(remedy)
    if remedy.startswith("aasm-run"):
        assert look_again(work, rows["target"].remedy)["target"].status == "ok"
    elif remedy.startswith("chmod"):
        type_remedy(rows["target"].remedy, clean_environment(), work)
        assert look(work, *words)["target"].status == "ok"


def test_what_is_no_python_is_not_governed(work: Path) -> None:
    """And there is no interpreter to look at."""
    rows = look(work, "ls")
    assert statuses(rows) == ["fail", "skip", "skip", "skip"]
    assert "not a Python program" in rows["target"].found


def test_a_wrapper_that_decides_itself_takes_the_doctor_inside(gateway: Gateway, work: Path) -> None:
    """The remedy asks the doctor where the wrapper has decided; there the row is well."""
    tools = script(work / "bin" / "uv", '#!/bin/sh\nshift\nexec "$@"\n').parent
    variables = {"PATH": f"{tools}:{BIN}:/usr/bin:/bin"}
    _, rows = diagnose(gateway.home, "--", "uv", "run", "python", work / "agent.py", environ=variables)
    assert rows["target"]["status"] == "warn"
    assert rows["target python"]["status"] == "skip"
    assert rows["target"]["remedy"] == f"uv run aasm-py doctor -- python {work / 'agent.py'}"
    environ = clean_environment(AASM_HOME=str(gateway.home), **variables)
    type_remedy(rows["target"]["remedy"], environ, work)
    _, rows = diagnose(gateway.home, "--", "python", work / "agent.py", environ=variables)
    assert rows["target"]["status"] == "ok"
    rows_of_shell = look(work, "sh", "-c", "python agent.py")
    assert "aasm-py doctor -- PROGRAM" in rows_of_shell["target"].remedy


@pytest.mark.parametrize("version", sorted(too_old()), ids=lambda version: f"{version[0]}.{version[1]}")
def test_an_old_python_is_named(work: Path, version: tuple[int, int]) -> None:
    """Its version, and what to start the program with instead."""
    rows = look(work, installed()[version], "agent.py")
    assert statuses(rows) == ["ok", "fail", "skip", "skip"]
    assert f"Python {version[0]}.{version[1]}." in rows["target python"].found
    assert "older than 3.10" in rows["target python"].found
    assert statuses(look_again(work, rows["target python"].remedy)) == ["ok"] * 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kill -SEGV $$", "was ended by SIGSEGV"),
        ("echo 'no such library' >&2; exit 127", "ended with exit code 127: no such library"),
        ("exec sleep 600", "did not answer within"),
        ("while :; do echo noise; done", "did not answer within"),
        ("exit 0", "ended with exit code 0"),
        (
            f'exec {sys.executable} -c \'import os, sys; os.write(int(sys.argv[-1]), b"[1\\n")\' "$@"',
            "that is no answer",
        ),
    ],
    ids=["crash", "complaint", "hang", "noise", "nothing", "nonsense"],
)
def test_a_python_that_does_not_answer(work: Path, text: str, found: str) -> None:
    """Whatever it does instead costs its row, and no traceback."""
    shim = script(work / "shim" / "python3", f"#!/bin/sh\n{text}\n")
    rows = look(work, shim, "agent.py")
    assert rows["target python"].status == "fail"
    assert found in rows["target python"].found
    assert [rows[name].status for name in ("target sdk", "target bootstrap")] == ["skip", "skip"]


def test_noise_before_the_answer_does_no_harm(work: Path) -> None:
    """A shim that prints whatever it likes and starts a Python in the end."""
    shim = script(work / "shim" / "python3", f'#!/bin/sh\necho "{{}}"; echo noise >&2\nexec {sys.executable} "$@"\n')
    rows = look(work, shim, "agent.py")
    assert statuses(rows) == ["ok"] * 4, rows
    assert "a shim decides" in rows["target"].found


def test_nothing_of_a_hanging_python_is_left_behind(work: Path) -> None:
    """Its children neither."""
    shim = script(
        work / "python3", f"#!/bin/sh\n(while :; do touch {work / 'alive'}; sleep 0.05; done) & exec sleep 600\n"
    )
    answer = ask_python([str(shim)], "", clean_environment(), 0.5)
    assert answer.facts is None
    assert answer.ended is not None
    assert answer.ended.code is None
    (work / "alive").unlink(missing_ok=True)
    after = ask_python([sys.executable], "import time; time.sleep(0.3)", clean_environment(), 20)
    assert after.facts == {}
    assert not (work / "alive").exists()


@pytest.mark.slow
def test_an_environment_without_the_sdk_gets_it(work: Path, tmp_path: Path) -> None:
    """The command installs it there; under observe it is a warning."""
    assert (
        "agent-assembly"
        in look(work, environment(sys.version_info[:2], with_sdk=False), "agent.py")["target sdk"].remedy
    )
    own = OwnPython(tmp_path)
    own.add_pip()
    for name in ("agent_assembly", "aasm_py", f"agent_assembly-{__version__}.dist-info"):
        shutil.rmtree(own.site / name)
    rows = look(work, own.path, "agent.py")
    assert statuses(rows) == ["ok", "ok", "fail", "skip"]
    assert look(work, own.path, "agent.py", AASM_ENFORCEMENT_MODE="observe")["target sdk"].status == "warn"
    own.sdk_wheel(tmp_path)
    type_remedy(rows["target sdk"].remedy, {**own.variables, **offline(tmp_path)}, work)
    assert statuses(look(work, own.path, "agent.py")) == ["ok"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("how", ["broken", "older"])
def test_an_sdk_that_is_not_this_one(work: Path, tmp_path: Path, how: str) -> None:
    """A broken one fails, one of another version is a warning; the command puts this one there."""
    own = OwnPython(tmp_path)
    own.add_pip()
    if how == "broken":
        (own.site / "agent_assembly" / "__init__.py").write_text("import no_such_module\n")
    else:
        (own.site / "agent_assembly" / "_version.py").write_text('__version__ = "0.0.1"\n')
        facts = own.site / f"agent_assembly-{__version__}.dist-info"
        metadata = (facts / "METADATA").read_text().replace(f"\nVersion: {__version__}", "\nVersion: 0.0.1")
        facts.rename(own.site / "agent_assembly-0.0.1.dist-info")
        (own.site / "agent_assembly-0.0.1.dist-info" / "METADATA").write_text(metadata)
    row = look(work, own.path, "agent.py")["target sdk"]
    assert row.status == ("fail" if how == "broken" else "warn")
    assert ("no_such_module" if how == "broken" else "version 0.0.1") in row.found
    own.sdk_wheel(tmp_path)
    type_remedy(row.remedy, {**own.variables, **offline(tmp_path)}, work)
    assert look(work, own.path, "agent.py")["target sdk"].status == "ok"


def test_a_chained_sitecustomize_is_named(work: Path, tmp_path: Path) -> None:
    """That of the target's environment, which runs after the bootstrap."""
    own = OwnPython(tmp_path)
    own.module("sitecustomize", "x = 1\n")
    row = look(work, own.path, "agent.py")["target bootstrap"]
    assert row.status == "ok"
    assert f"then runs the sitecustomize in {own.site}" in row.found


def test_the_adapters_are_those_of_the_commands_python(tmp_path: Path, work: Path) -> None:
    """Its frameworks, not those of the Python that runs the doctor."""
    from aasm_py.doctor.adapters import CHECKS as adapters

    own = OwnPython(tmp_path)
    environ = clean_environment(AASM_HOME=str(tmp_path), PATH="/usr/bin:/bin")
    rows = run_checks(Look(environ, [str(own.path), "agent.py"], seconds=20.0), adapters)
    assert [row.check for row in rows] == ["adapters", "initialization"]
    assert str(own.path) in rows[0].found
    assert "no framework" in rows[0].found
    rows = run_checks(Look(environ, ["ls"], seconds=20.0), adapters)
    assert [row.status for row in rows] == ["skip", "skip"]


@pytest.mark.parametrize(
    ("flags", "passed"),
    [
        (["-u", "-V"], ["-u"]),
        (["-Vi"], []),
        (["-uh", "-W", "ignore::X", "-b"], ["-u", "-W", "ignore::X", "-b"]),
        (["-Xdev", "-WX"], ["-Xdev", "-WX"]),
        (["-bX", "dev"], ["-bX", "dev"]),
        (["--version", "--check-hash-based-pycs", "never", "-O"], ["--check-hash-based-pycs", "never", "-O"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_the_flags_of_the_command_are_those_of_the_probe(flags: list[str], passed: list[str]) -> None:
    """But for those with which Python does something else."""
    assert without_flags(flags) == passed
    words = subject(Look({"PATH": "/usr/bin:/bin"}, [sys.executable, *flags, "agent.py"])).words
    assert words == (sys.executable, *passed)
