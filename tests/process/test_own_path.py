"""What is meant for the program is not imported by our commands; what is theirs is found whatever PYTHONPATH says."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.programs import program, run_command

COMMANDS = {"aasm-run": ("--no-start", "--explain", "ls"), "aasm-py": ("audit", "list")}
# Each is imported by at least one of the commands, but for those that Python's own start needs.
NAMES = ("collections", "json", "rich", "textwrap", "typer", "typing", "yaml")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory with modules that no command may import."""
    directory = tmp_path / "hostile"
    directory.mkdir()
    for name in NAMES:
        (directory / f"{name}.py").write_text("raise SystemExit('captured')\n")
    return directory


@pytest.mark.parametrize(
    "python_path",
    [
        lambda directory: str(directory),
        lambda directory: f"/nowhere:{directory}/",
        lambda _: ".",
        lambda _: ":",
        lambda _: ":/nowhere",
        lambda _: "/nowhere:",
    ],
    ids=["absolute", "second", "relative", "empty", "empty first", "empty last"],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_modules_of_the_program_are_not_ours(
    name: str, python_path: Callable[[Path], str], home: Path, hostile: Path
) -> None:
    """Neither from PYTHONPATH nor from the current directory, which an empty entry of it stands for."""
    words = [program(name), *COMMANDS[name]]
    plain = run_command(words, home)
    result = run_command(words, home, environ={"PYTHONPATH": python_path(hostile)}, cwd=hostile)
    assert "captured" not in result.stderr
    assert result.returncode == plain.returncode
    assert result.stderr == plain.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_what_python_has_anyway_stays(name: str, home: Path) -> None:
    """Standard library and installed packages are found also when PYTHONPATH names their directories."""
    words = [program(name), *COMMANDS[name]]
    plain = run_command(words, home)
    named = os.pathsep.join([os.path.dirname(os.__file__), *site.getsitepackages()])
    result = run_command(words, home, environ={"PYTHONPATH": named})
    assert (result.returncode, result.stderr) == (plain.returncode, plain.stderr)


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="this Python does not start there by itself")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_current_directory_that_is_gone_stops_nothing(name: str, home: Path, tmp_path: Path) -> None:
    """A relative entry of PYTHONPATH then leads nowhere."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && exec {program(name)} --version"
    result = run_command(["sh", "-c", script], home, environ={"PYTHONPATH": "relative::"})
    assert (result.returncode, result.stderr) == (0, "")
