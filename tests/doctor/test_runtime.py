"""The rows about what is installed: this Python, the program aasm, the native module."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from support.doctor import type_remedy
from support.gateway import find_aasm
from support.own_python import OwnPython
from support.wheels import BUILT, offline

from aasm_py.doctor.runtime import judge_python
from agent_assembly import __version__


@pytest.fixture
def own(tmp_path: Path) -> OwnPython:
    return OwnPython(tmp_path)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_python_is_named(own: OwnPython) -> None:
    """Its version and where it is."""
    row = own.rows(only=["python"])["python"]
    assert row["status"] == "ok"
    assert f"{sys.version.split()[0]}, {own.path}" in row["found"]


@pytest.mark.parametrize(("version", "implementation"), [((3, 9), "CPython"), ((3, 15), "CPython"), ((3, 11), "PyPy")])
def test_a_python_that_was_not_tried_is_a_warning(version: tuple[int, int], implementation: str) -> None:
    """With the command that makes an environment of one that was."""
    row = judge_python(version, False, implementation)
    assert row.status == "warn"
    assert row.remedy.startswith("python3.14 -m venv ")


def test_a_free_threaded_python_does_without_the_native_module() -> None:
    """Which is a fact worth knowing, and no fault."""
    row = judge_python((3, 14), True, "CPython")
    assert (row.status, row.remedy) == ("ok", "")
    assert "native module" in row.found


def test_aasm_that_is_not_executable_can_be_made_so(own: OwnPython) -> None:
    """Without a gateway nothing could be started: the row fails; the remedy is typed, and it is gone."""
    program = own.path.parent / "aasm"
    shutil.copy(find_aasm(), program)
    program.chmod(0o644)
    row = own.rows(only=["aasm program"])["aasm program"]
    assert row["status"] == "fail"
    assert f"{program} is not executable" in row["found"]
    type_remedy(row["remedy"], own.variables, own.directory)
    row = own.rows(only=["aasm program"])["aasm program"]
    assert (row["status"], row["found"]) == ("ok", f"{program}, version {__version__}")


def test_aasm_beside_this_python_alone_cannot_be_typed(own: OwnPython) -> None:
    """It works; but the other rows say `aasm start`."""
    shutil.copy(find_aasm(), own.path.parent / "aasm")
    variables = {**own.variables, "PATH": "/usr/bin:/bin"}
    row = own.rows(only=["aasm program"], variables=variables)["aasm program"]
    assert row["status"] == "warn"
    assert "is not on PATH" in row["found"]
    variables = type_remedy(row["remedy"], variables, own.directory)
    assert own.rows(only=["aasm program"], variables=variables)["aasm program"]["status"] == "ok"


def test_the_aasm_that_is_typed_may_be_another_one(own: OwnPython) -> None:
    """A second one of another version comes first on PATH."""
    shutil.copy(find_aasm(), own.path.parent / "aasm")
    other = script(own.directory / "other" / "aasm", "echo aasm 9.9.9")
    variables = {**own.variables, "PATH": f"{other.parent}:{own.variables['PATH']}"}
    row = own.rows(only=["aasm program"], variables=variables)["aasm program"]
    assert row["status"] == "warn"
    assert f"the one on PATH, {other}, is version 9.9.9" in row["found"]
    variables = type_remedy(row["remedy"], variables, own.directory)
    assert own.rows(only=["aasm program"], variables=variables)["aasm program"]["status"] == "ok"


def test_without_aasm_no_gateway_can_be_started(own: OwnPython) -> None:
    """The row fails; a gateway that is named makes it a warning. The remedy is the documented extra."""
    row = own.rows(only=["aasm program"])["aasm program"]
    assert row["status"] == "fail"
    assert "install 'agent-assembly[runtime]'" in row["remedy"]
    named = {**own.variables, "AASM_GATEWAY_URL": "https://gateway.example.com"}
    assert own.rows(only=["aasm program"], variables=named)["aasm program"]["status"] == "warn"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("echo aasm 0.0.1", f"is version 0.0.1, the SDK {__version__}"),
        ("echo damaged >&2; exit 3", "ended with exit code 3: damaged"),
        ("echo something else", "says 'something else' when asked for its version"),
        ("kill -SEGV $$", "was ended by SIGSEGV"),
        ("exec sleep 600", "did not answer within"),
    ],
)
def test_an_aasm_that_is_not_ours(own: OwnPython, text: str, found: str) -> None:
    """Another version is a warning; one that does not run, or says something else, fails."""
    script(own.path.parent / "aasm", text)
    row = own.rows(only=["aasm program"])["aasm program"]
    assert row["status"] == ("warn" if "0.0.1" in text else "fail")
    assert found in row["found"]
    assert f"agent-assembly-gateway=={__version__}" in row["remedy"]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["echo aasm 0.0.1", "exit 3"])
def test_the_right_aasm_can_be_installed(own: OwnPython, text: str) -> None:
    """The remedy is typed as it stands, with pip and without a network."""
    own.add_pip()
    script(own.path.parent / "aasm", text)
    row = own.rows(only=["aasm program"])["aasm program"]
    type_remedy(row["remedy"], {**own.variables, **offline(BUILT)}, own.directory)
    assert own.rows(only=["aasm program"])["aasm program"]["status"] == "ok"


@pytest.mark.slow
def test_what_is_missing_can_be_installed(own: OwnPython) -> None:
    """The documented extra brings both, the program and the native module; pip first, where that is missing too."""
    rows = own.rows(only=["aasm program", "native module"])
    assert rows["native module"]["status"] == "warn"
    assert "-m ensurepip && " in rows["native module"]["remedy"]
    assert rows["native module"]["remedy"] == rows["aasm program"]["remedy"]
    type_remedy(rows["aasm program"]["remedy"], {**own.variables, **offline(BUILT)}, own.directory)
    rows = own.rows(only=["aasm program", "native module"])
    assert {row["status"] for row in rows.values()} == {"ok"}


def _installed_core() -> Path:
    import agent_assembly_core

    return Path(agent_assembly_core.__file__).parent


def test_the_native_module_is_named(own: OwnPython) -> None:
    """With its version and its file."""
    shutil.copytree(_installed_core(), own.site / "agent_assembly_core")
    row = own.rows(only=["native module"])["native module"]
    assert row["status"] == "ok"
    assert row["found"].startswith(f"version {__version__}, {own.site}")


@pytest.mark.parametrize("broken", ["truncated", "garbage", "crash", "empty"])
def test_a_broken_native_module_costs_its_row(own: OwnPython, broken: str) -> None:
    """Whatever its import does to a process, the doctor goes on."""
    package = own.site / "agent_assembly_core"
    shutil.copytree(_installed_core(), package)
    (library,) = package.glob("_core*.so")
    if broken == "truncated":
        library.write_bytes(library.read_bytes()[:4096])
    elif broken == "garbage":
        library.write_bytes(b"no library")
    else:
        library.unlink()
        own.module("agent_assembly_core._core", "import os; os.abort()" if broken == "crash" else "")
    row = own.rows(only=["native module"])["native module"]
    assert row["status"] == "warn"
    assert "optional" in row["found"]
    assert f"agent-assembly-core=={__version__}" in row["remedy"]


@pytest.mark.slow
def test_a_broken_native_module_can_be_replaced(own: OwnPython) -> None:
    """The remedy is typed as it stands."""
    own.add_pip()
    own.module("agent_assembly_core._core", "raise ImportError('undefined symbol')")
    row = own.rows(only=["native module"])["native module"]
    assert "undefined symbol" in row["found"]
    type_remedy(row["remedy"], {**own.variables, **offline(BUILT)}, own.directory)
    (own.site / "agent_assembly_core" / "_core.py").unlink(missing_ok=True)
    assert own.rows(only=["native module"])["native module"]["status"] == "ok"


def test_the_doctors_children_end_with_it(own: OwnPython) -> None:
    """Nothing that it asked goes on, also what did not answer, and what that started."""
    marker = own.directory / "alive"
    script(own.path.parent / "aasm", f"(while :; do touch {marker}; sleep 0.1; done) & exec sleep 600")
    own.rows(only=["aasm program"])
    marker.unlink(missing_ok=True)
    assert not _appears(marker)


def _appears(path: Path) -> bool:
    import time

    for _ in range(10):
        if path.exists():
            return True
        time.sleep(0.05)
    return os.path.exists(path)
