"""Exceptions: the documented hierarchy and attributes, also after a journey to another process."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agent_assembly
from agent_assembly import exceptions
from agent_assembly.governance import ToolCall, Verdict, blocked_error

PARENTS = {
    "AssemblyError": Exception,
    "AgentError": "AssemblyError",
    "PolicyError": "AssemblyError",
    "GatewayError": "AssemblyError",
    "ConfigurationError": "AssemblyError",
    "AdapterValidationError": "AssemblyError",
    "OpTerminatedError": "AssemblyError",
    "ToolExecutionBlockedError": "AssemblyError",
    "MCPToolBlockedError": "ToolExecutionBlockedError",
    "PolicyViolationError": "ToolExecutionBlockedError",
}
FACTS: dict[str, Any] = {
    "tool_name": "t",
    "reason": "r",
    "rule": "u",
    "policy": "p",
    "code": "rule",
    "event_id": "0" * 32,
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "AssemblyError": {},
    "AgentError": {},
    "PolicyError": {"diagnostics": [{"file": "f", "line": 1}]},
    "GatewayError": {"code": "gateway_timeout", "status": 503},
    "ConfigurationError": {},
    "AdapterValidationError": {},
    "OpTerminatedError": {"op_id": "op-1"},
    "ToolExecutionBlockedError": FACTS,
    "MCPToolBlockedError": {**FACTS, "server": "s"},
    "PolicyViolationError": FACTS,
}


@pytest.mark.parametrize("name", PARENTS)
def test_the_hierarchy_is_the_documented_one(name: str) -> None:
    """Each class has exactly the documented base, and is reachable from the package itself."""
    parent = PARENTS[name]
    cls = getattr(exceptions, name)
    assert cls.__bases__ == (getattr(exceptions, parent) if isinstance(parent, str) else parent,)
    assert getattr(agent_assembly, name) is cls
    assert inspect.getdoc(cls), "each says what it stands for"


def test_there_are_no_others() -> None:
    """The module's public names are the documented classes and nothing else."""
    assert set(exceptions.__all__) == set(PARENTS)


def test_the_documented_signatures() -> None:
    """Message first, facts by keyword; what the reference page calls optional is optional."""
    mcp = inspect.signature(exceptions.MCPToolBlockedError)
    assert list(mcp.parameters)[:3] == ["message", "tool_name", "server"]
    assert mcp.parameters["message"].default is inspect.Parameter.empty
    keyword_only = {p.kind for name, p in mcp.parameters.items() if name != "message"}
    assert keyword_only == {inspect.Parameter.KEYWORD_ONLY}
    error = exceptions.MCPToolBlockedError("m")
    assert (str(error), error.tool_name, error.server) == ("m", None, None)
    with pytest.raises(TypeError):
        exceptions.OpTerminatedError("m")  # type: ignore[call-arg]
    assert exceptions.OpTerminatedError("m", op_id="x").op_id == "x"
    for name in ("AssemblyError", "AgentError", "ConfigurationError", "PolicyViolationError", "GatewayError"):
        assert str(getattr(exceptions, name)("m")) == "m"
        assert str(getattr(exceptions, name)()) == ""


def check_same(error: BaseException, other: BaseException) -> None:
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_keeps_type_message_and_facts(name: str, protocol: int) -> None:
    """Errors cross process pools whole, notes included."""
    error = getattr(exceptions, name)("message é", **EXAMPLES[name])
    for fact, value in EXAMPLES[name].items():
        assert getattr(error, fact) == value
    error.__notes__ = ["a note"]
    check_same(error, pickle.loads(pickle.dumps(error, protocol)))
    check_same(error, copy.copy(error))
    check_same(error, copy.deepcopy(error))


def test_subclasses_of_the_users_pickle_too() -> None:
    """A subclass with arguments of its own needs no code for it."""
    error = Special(1, two=2)
    check_same(error, pickle.loads(pickle.dumps(error)))


class Special(exceptions.PolicyViolationError):
    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(f"{one} {two}", rule="r")
        self.two = two


WORKER = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from agent_assembly import AssemblyError, OpTerminatedError

def work():
    raise OpTerminatedError("ended", op_id="op-9")

if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(sys.argv[1])) as pool:
        try:
            pool.submit(work).result(timeout=60)
        except AssemblyError as error:
            print(type(error).__name__, error, error.op_id)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_an_error_of_a_worker_process_arrives(method: str, tmp_path: Path) -> None:
    """An error raised in a process pool is caught by its type, with its facts, in the parent."""
    program = tmp_path / "program.py"
    program.write_text(WORKER)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(program), method]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("OpTerminatedError ended op-9\n", "")


def test_a_blocked_call_raises_what_its_framework_deserves() -> None:
    """MCP calls raise MCPToolBlockedError with the server, all others PolicyViolationError; both carry the verdict."""
    verdict = Verdict("deny", "because", "rule", True, rule="r", policy="p")
    for framework, cls in (("mcp", exceptions.MCPToolBlockedError), ("langchain", exceptions.PolicyViolationError)):
        call = ToolCall(tool="t", framework=framework, arguments={}, server="s")
        error = blocked_error(call, verdict)
        assert type(error) is cls
        facts = (error.tool_name, error.reason, error.rule, error.policy, error.code, error.event_id)
        assert facts == ("t", "because", "r", "p", "rule", call.event_id)
        assert str(error) == "because"
    assert isinstance(error, exceptions.ToolExecutionBlockedError)
