"""The rows about the agent frameworks of an interpreter."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from support.doctor import type_remedy
from support.own_python import OwnPython, Rows
from support.wheels import offline, unpack, wheel

CHECKS = ("adapters", "initialization")
# As much of LangChain as its adapter takes hold of.
BASE = "class BaseTool:\n" + "".join(f"    def {name}(self): ...\n" for name in ("run", "arun", "invoke", "ainvoke"))
THIRD_PARTY = """
from agent_assembly.adapters.base import FrameworkAdapter

class Adapter(FrameworkAdapter):
    distribution = "own-framework"

    def get_framework_name(self):
        return "own_framework"

    def get_supported_versions(self):
        return {versions}

    def is_available(self):
        return {available}

    def register_hooks(self, interceptor):
        {register}

    def unregister_hooks(self):
        pass
"""


@pytest.fixture
def own(tmp_path: Path) -> OwnPython:
    return OwnPython(tmp_path)


def langchain(directory: Path, version: str = "1.0", base: str = BASE) -> Path:
    """A wheel of something that has LangChain's name and shape."""
    files = {
        "langchain_core/__init__.py": "",
        "langchain_core/tools/__init__.py": "",
        "langchain_core/tools/base.py": base,
    }
    return wheel(directory, "langchain-core", version, files)


def third_party(
    own: OwnPython, *, versions: str = "['>=1']", available: bool = True, register: str = "pass", code: str = ""
) -> None:
    text = code or THIRD_PARTY.format(versions=versions, available=available, register=register)
    entry = "[agent_assembly.adapters]\nown = own_adapter:Adapter\n"
    unpack(wheel(own.directory, "own-adapter", "1.0", {"own_adapter.py": text}, entry_points=entry), own.site)


def rows(own: OwnPython, variables: dict[str, str] | None = None) -> Rows:
    return own.rows(only=CHECKS, variables=variables)


def test_the_frameworks_of_this_environment_are_armed(tmp_path: Path) -> None:
    """The real ones, with their versions, within what is supported."""
    pytest.importorskip("langchain_core")
    pytest.importorskip("langgraph")
    from aasm_py.doctor.adapters import CHECKS as checks
    from aasm_py.doctor.look import Look
    from aasm_py.doctor.runner import run_checks

    environ = {**os.environ, "AASM_HOME": str(tmp_path)}
    found = {row.check: row for row in run_checks(Look(environ, seconds=60), checks)}
    assert {name: row.status for name, row in found.items()} == {
        "adapters": "ok",
        "adapter langchain": "ok",
        "adapter langgraph": "ok",
        "initialization": "ok",
    }, found
    assert "armed" in found["adapter langchain"].found


def test_without_frameworks_there_is_nothing_to_govern(own: OwnPython) -> None:
    """The row names those that could be."""
    found = rows(own)
    assert set(found) == {"adapters", "initialization"}
    assert "no framework" in found["adapters"]["found"]
    assert "langchain (langchain-core)" in found["adapters"]["found"]
    assert found["initialization"]["status"] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "base", "status", "found"),
    [
        ("9.0", BASE, "warn", "made for >=0.3,<2"),
        ("9.0", "class BaseTool: ...", "fail", "cannot be governed"),
        ("9.0", "raise ValueError('mine')", "fail", "cannot be imported: ValueError: mine"),
        ("9.0", "import no_such_module", "fail", "ModuleNotFoundError"),
        ("9.0", "import os; os.abort()", "fail", "was ended by SIGABRT"),
        ("9.0", "raise SystemExit(3)", "fail", "SystemExit"),
    ],
)
def test_a_framework_that_cannot_be_governed(own: OwnPython, version: str, base: str, status: str, found: str) -> None:
    """The command installs a version that can be."""
    own.add_pip()
    unpack(langchain(own.directory, version, base), own.site)
    row = rows(own)["adapter langchain"]
    assert row["status"] == status
    assert found in row["found"]
    langchain(own.directory, "1.0")
    type_remedy(row["remedy"], {**own.variables, **offline(own.directory)}, own.directory)
    row = rows(own)["adapter langchain"]
    assert (row["status"], row["remedy"]) == ("ok", "")
    assert row["found"] == "langchain-core 1.0, armed (supported: >=0.3,<2)"


@pytest.mark.parametrize("module", ["langchain_core.tools.base", "needed"])
def test_what_hides_a_framework_is_taken_off_python_path(own: OwnPython, module: str) -> None:
    """Also where it hides something that the framework needs."""
    unpack(langchain(own.directory, "1.0", f"import needed\nneeded.present\n{BASE}"), own.site)
    own.module("needed", "present = True\n")
    own.module(module, site=own.directory / "hiding")
    variables = {**own.variables, "PYTHONPATH": str(own.directory / "hiding")}
    row = rows(own, variables)["adapter langchain"]
    assert row["status"] == "fail"
    assert row["remedy"] == "unset PYTHONPATH"
    variables = type_remedy(row["remedy"], variables, own.directory)
    assert rows(own, variables)["adapter langchain"]["status"] == "ok"


def test_what_hides_the_standard_library_is_taken_off_python_path(own: OwnPython) -> None:
    """To install the SDK anew would not help."""
    own.module("json", site=own.directory / "hiding")
    variables = {**own.variables, "PYTHONPATH": str(own.directory / "hiding")}
    row = rows(own, variables)["adapters"]
    assert (row["status"], row["remedy"]) == ("fail", "unset PYTHONPATH")
    variables = type_remedy(row["remedy"], variables, own.directory)
    assert rows(own, variables)["adapters"]["status"] == "ok"


def test_one_that_hangs_costs_its_own_row(own: OwnPython) -> None:
    """The others are looked at meanwhile, and nothing goes on afterwards; the command shows where it hangs."""
    unpack(langchain(own.directory, base=BASE + f"import time; time.sleep(600)  # {own.directory}\n"), own.site)
    own.module("langgraph.errors", "class GraphBubbleUp(Exception): ...\nclass ParentCommand(GraphBubbleUp): ...\n")
    found = rows(own)
    assert found["adapter langchain"]["status"] == "warn"
    assert "was not imported within" in found["adapter langchain"]["found"]
    assert "-X importtime -c 'import langchain_core.tools.base'" in found["adapter langchain"]["remedy"]
    assert found["adapter langgraph"]["status"] == "ok"
    assert found["initialization"]["status"] == "skip"
    assert not _running(own.directory)


def _running(directory: Path) -> list[str]:
    """The processes that were started in or from `directory`, given a moment to go."""
    for _ in range(50):
        found = [
            " ".join(process.info["cmdline"] or ())[:200]
            for process in psutil.process_iter(["cmdline", "exe", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE
            and any(str(directory) in word for word in process.info["cmdline"] or ())
        ]
        if not found:
            break
        time.sleep(0.05)
    return found


def test_a_hook_that_cannot_be_put_in_place_is_what_init_assembly_says(own: OwnPython) -> None:
    """Under the documented message, with the cause."""
    third_party(own, register="raise OSError('no such hook')")
    found = rows(own)
    assert found["initialization"]["status"] == "fail"
    assert found["initialization"]["found"] == "Failed to initialize assembly runtime: no such hook"
    assert found["adapter own_framework"]["found"] == "adapter of own-adapter 1.0: OSError: no such hook"


def test_adapters_of_third_parties_are_named_with_their_distribution(own: OwnPython) -> None:
    """Registered; out of range; waiting for a framework that is not there."""
    third_party(own)
    row = rows(own)["adapter own_framework"]
    assert (row["status"], row["found"]) == ("ok", "adapter of own-adapter 1.0, registered")
    unpack(wheel(own.directory, "own-framework", "0.5"), own.site)
    row = rows(own)["adapter own_framework"]
    assert row["status"] == "warn"
    assert "for own-framework 0.5, but made for >=1" in row["found"]
    assert "'own-framework>=1'" in row["remedy"]
    third_party(own, available=False)
    assert set(rows(own)) == {"adapters", "initialization"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise RuntimeError('broken')", "cannot be loaded: RuntimeError: broken"),
        ("class Adapter: ...", "is not a subclass of FrameworkAdapter"),
        ("import os; os.abort()", "was ended by SIGABRT"),
        (THIRD_PARTY.format(versions="'1'", available=True, register="pass"), "breaks the contract"),
    ],
)
def test_an_adapter_that_breaks_its_contract_can_be_taken_out(own: OwnPython, code: str, problem: str) -> None:
    """It fails under its name, and the remedy names the distribution that offers it."""
    own.add_pip()
    third_party(own, code=code)
    found = rows(own)
    row = found["adapter own"]
    assert row["status"] == "fail"
    assert problem in row["found"]
    assert "own-adapter" in row["remedy"]
    type_remedy(row["remedy"], own.variables, own.directory)
    found = rows(own)
    assert set(found) == {"adapters", "initialization"}
    assert found["initialization"]["status"] == "ok"
