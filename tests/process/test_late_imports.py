"""Late imports of the SDK beside a program that has files with the names of other modules."""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

import pytest
from support.gateway import clean_environment

from .conftest import Launch

NAMES = ("json", "yaml", "httpx", "typing_extensions", "logging", "anyio")

PROGRAM = """
    import sys
    {before}
    from agent_assembly.core.late_imports import isolated

    for _ in range(2):
        with isolated():
            import httpx, yaml
            import json as theirs
            import logging as log
            assert theirs.dumps([1]) == "[1]", theirs
            assert yaml.safe_load("a: 1") == {{"a": 1}}
            assert log.getLogger("x").name == "x"
            httpx.Client().close()
        kept = kept if "kept" in globals() else httpx
        assert kept is httpx, "imported twice"

    import anyio, httpx, json, logging, typing_extensions, yaml
    for module in (anyio, httpx, json, logging, typing_extensions, yaml):
        assert module.WHOSE == "mine", module
    print("fine")
"""


def run(python: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *words], cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("WHOSE = 'mine'\n")
    return tmp_path


@pytest.mark.parametrize("before", ["", f"import {', '.join(NAMES)}"], ids=["untouched", "imported before"])
@pytest.mark.parametrize("how", ["script", "-m", "-c"])
def test_each_gets_its_own(python: str, directory: Path, how: str, before: str) -> None:
    """The SDK gets the standard library's and the installed modules, the program its own, before and after."""
    code = textwrap.dedent(PROGRAM).format(before=before)
    (directory / "agent.py").write_text(code)
    words = {"script": ["agent.py"], "-m": ["-m", "agent"], "-c": ["-c", code]}[how]
    result = run(python, *words, cwd=directory)
    assert (result.stdout, result.stderr) == ("fine\n", "")


def test_in_a_run(launch: Launch, python: str, work: Path) -> None:
    """At the first framework's import the SDK comes to life beside such files, and calls nobody's attention to it."""
    for name in NAMES:
        (work / f"{name}.py").write_text("WHOSE = 'mine'\n")
    (work / "langgraph").mkdir()
    (work / "langgraph" / "__init__.py").touch()
    (work / "langgraph" / "errors.py").write_text(
        "class GraphBubbleUp(Exception): ...\nclass ParentCommand(GraphBubbleUp): ...\n"
    )
    (work / "agent.py").write_text(
        "import langgraph.errors, json, logging, httpx, yaml, sys\n"
        "print('agent_assembly.core.assembly' in sys.modules)\n"
        "print(json.WHOSE, logging.WHOSE, httpx.WHOSE, yaml.WHOSE)\n"
    )
    result = launch(python, "agent.py")
    assert (result.stdout, result.stderr) == ("True\nmine mine mine mine\n", "")


def test_a_script_with_the_name_of_a_dependency(python: str, directory: Path) -> None:
    """The program itself may be called httpx.py."""
    (directory / "httpx.py").write_text(
        "from agent_assembly.core.late_imports import isolated\n"
        "with isolated():\n    import httpx\n    print(hasattr(httpx, 'Client'))\n"
    )
    (directory / "json.py").unlink()
    (directory / "logging.py").unlink()
    (directory / "typing_extensions.py").unlink()
    assert run(python, "httpx.py", cwd=directory).stdout == "True\n"


def test_a_folder_is_not_a_module(python: str, tmp_path: Path) -> None:
    """A directory of data named like a module does not stand before it, and stays out of it."""
    (tmp_path / "yaml").mkdir()
    code = """
        import sys
        from agent_assembly.core.late_imports import isolated

        with isolated():
            import yaml
        print("yaml" in sys.modules)
    """
    code = textwrap.dedent(code)
    assert run(python, "-c", code, cwd=tmp_path).stdout == "True\n"


def test_other_threads_see_the_path_as_it_was(python: str, tmp_path: Path) -> None:
    """A thread that imports the program's own modules meanwhile finds them."""
    (tmp_path / "own.py").write_text("X = 1\n")
    code = """
        import sys, threading
        from agent_assembly.core.late_imports import isolated

        found = []
        def other():
            import own
            found.append(own.X)
        with isolated():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            try:
                import missing_own
            except ModuleNotFoundError as error:
                found.append(error.name)
        print(found)
    """
    (tmp_path / "missing_own.py").touch()
    assert run(python, "-c", textwrap.dedent(code), cwd=tmp_path).stdout == "[1, 'missing_own']\n"


def test_a_current_directory_that_is_gone(python: str, tmp_path: Path) -> None:
    """It breaks nothing."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = """
        import os
        os.rmdir(os.getcwd())
        from agent_assembly.core.late_imports import isolated

        with isolated():
            import yaml
        print("fine")
    """
    code = textwrap.dedent(code)
    assert run(python, "-c", code, cwd=gone).stdout == "fine\n"
    assert not os.path.exists(gone)
