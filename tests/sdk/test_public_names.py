"""The public names: one list, loaded when they are used, and nothing heavy before."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import agent_assembly

# Named by the documentation as importable from `agent_assembly`.
DOCUMENTED = {
    "AdapterRegistry",
    "AdapterValidationError",
    "AgentError",
    "AssemblyContext",
    "AssemblyError",
    "ConfigurationError",
    "FrameworkAdapter",
    "GatewayClient",
    "GatewayError",
    "MCPToolBlockedError",
    "OpTerminatedError",
    "PolicyError",
    "PolicyViolationError",
    "ToolExecutionBlockedError",
    "init_assembly",
}
OURS = {
    "SETTINGS",
    "AdapterState",
    "GovernanceInterceptor",
    "Outcome",
    "Setting",
    "Settings",
    "SpawnContext",
    "ToolCall",
    "Verdict",
    "__version__",
    "child_environment",
    "current_context",
    "current_spawn_context",
    "home_directory",
    "init_assembly",
    "resolve_settings",
    "spawn_context",
}
# fmt: off
HEAVY = [
    "typing", "dataclasses", "enum", "re", "json", "pathlib", "logging", "inspect", "threading", "subprocess",
    "importlib.metadata", "typing_extensions", "http", "ssl", "socket", "argparse", "contextlib", "functools",
    "collections", "httpx", "httpcore", "yaml", "asyncio", "concurrent", "hashlib", "pydantic", "psutil", "rich",
    "typer",
]
# fmt: on


def python(program: str) -> str:
    """Run a program in a fresh interpreter that loads neither site packages' hooks nor the user's."""
    prelude = f"import sys; sys.path[:] = {sys.path!r}\n"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", prelude + program], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_all_is_the_documented_list() -> None:
    """`__all__` holds the documented names and ours, each once, in order."""
    assert set(agent_assembly.__all__) == DOCUMENTED | OURS
    assert len(set(agent_assembly.__all__)) == len(agent_assembly.__all__)


@pytest.mark.parametrize("name", sorted(DOCUMENTED | OURS))
def test_each_name_can_be_had(name: str) -> None:
    """Each public name leads to something; the second time to the same."""
    first = getattr(agent_assembly, name)
    assert first is not None
    assert getattr(agent_assembly, name) is first
    if hasattr(first, "__name__") and name != "SETTINGS":
        assert first.__name__ == name


def test_dir_lists_what_is_not_loaded_yet() -> None:
    """`dir()` in a fresh interpreter shows every public name."""
    names = json.loads(python("import agent_assembly as a; names = dir(a)\nimport json; print(json.dumps(names))"))
    assert set(agent_assembly.__all__) <= set(names)
    assert names == sorted(names)


def test_a_star_import_brings_all_of_them() -> None:
    """`from agent_assembly import *` binds exactly the public names."""
    program = (
        "before = set(globals()); from agent_assembly import *\nprint(*sorted(set(globals()) - before - {'before'}))"
    )
    assert set(python(program).split()) | {"__version__"} == set(agent_assembly.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Other names do not exist, also for `from … import`."""
    with pytest.raises(AttributeError, match=r"module 'agent_assembly' has no attribute 'nonsense'"):
        _ = agent_assembly.nonsense  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        exec("from agent_assembly import nonsense")


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import agent_assembly` adds the package and its version, no module of the standard library besides."""
    program = "before = set(sys.modules); import agent_assembly; print(*sorted(set(sys.modules) - before))"
    assert python(program).split() == ["agent_assembly", "agent_assembly._version"]


def test_exceptions_cost_only_themselves() -> None:
    """A program that catches our errors does not pay for the rest."""
    program = "before = set(sys.modules); from agent_assembly import AssemblyError; print(*set(sys.modules) - before)"
    ours = {"agent_assembly", "agent_assembly._version", "agent_assembly.exceptions"}
    assert set(python(program).split()) - {"__future__"} == ours


@pytest.mark.parametrize(
    "module",
    ["agent_assembly", "agent_assembly.core.settings", "agent_assembly.core.home", "agent_assembly.core.proof"],
)
def test_light_modules_stay_light(module: str) -> None:
    """What runs before the user's program imports none of the modules that make a start slow."""
    program = f"before = set(sys.modules); import {module}; print(*sorted(set(sys.modules) - before))"
    assert not set(python(program).split()) & set(HEAVY)


def test_the_version_is_that_of_the_distribution() -> None:
    """`__version__` is a plain version, the same that the build reads."""
    text = (Path(agent_assembly.__file__).parent / "_version.py").read_text()
    assert f'"{agent_assembly.__version__}"' in text
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", agent_assembly.__version__)


def test_closed_sets_are_types() -> None:
    """The values that settings, verdicts and records take are Literals, equal to what is checked at run time."""
    from typing import get_args

    from agent_assembly import types
    from agent_assembly.core import settings

    assert get_args(types.Mode) == settings.MODES
    assert get_args(types.EnforcementMode) == settings.ENFORCEMENT_MODES
    assert get_args(types.OnDeny) == settings.BY_NAME["on_deny"].choices
    assert get_args(types.Decision) == ("allow", "deny", "redact", "approve")
    assert set(get_args(types.Status)) == {"returned", "raised", "refused", "cancelled", "suspended", "unknown"}
