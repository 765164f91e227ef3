"""A class that travels by value, as cloudpickle sends those of a script, takes its choke points along.

Plain pickle names a class; to send one by value is to send the functions in it: their closures and their attributes.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

import pytest
from langchain_core.tools import BaseTool

from agent_assembly.adapters.langchain import LangChainAdapter
from agent_assembly.exceptions import PolicyViolationError


class Writing(BaseTool):
    """Does its work in `run`, past what the framework does there."""

    name: str = "write"
    description: str = "d"
    witness: str = ""

    def _run(self) -> str:
        raise NotImplementedError

    def run(self, *args: Any, **kwargs: Any) -> Any:
        Path(self.witness).touch()
        return "written"


def original_run(self: Writing, *args: Any, **kwargs: Any) -> Any:
    Path(self.witness).touch()
    return "written"


def sent(function: Any) -> bytes:
    """What of a governed method goes over the wire, besides its code."""
    cells = [cell.cell_contents for cell in function.__closure__]
    for layer in cells:
        # By value like the rest, in truth; here it is a module's own, lest this need cloudpickle.
        layer.original = original_run
    attributes = {name: value for name, value in vars(function).items() if name != "__wrapped__"}
    return pickle.dumps((cells, attributes))


def received(function: Any, data: bytes) -> type[Writing]:
    """The class as it is put together on the other side: made first, then given its methods."""
    cells, attributes = pickle.loads(data)
    closure = tuple(CellType(value) for value in cells)
    run = FunctionType(function.__code__, function.__globals__, function.__name__, None, closure)
    vars(run).update(attributes)
    made = type("Arrived", (Writing,), {"__module__": __name__, "__annotations__": {}})
    made.run = run
    return made


def test_it_is_governed_where_it_arrives(interceptor: Any, witness: Path) -> None:
    """By what is in force there: the denied body does not run, and there is one verdict."""
    function = vars(Writing)["run"]
    arrived = received(function, sent(function))
    interceptor.deny("write")
    with pytest.raises(PolicyViolationError):
        arrived(witness=str(witness)).run("x")
    assert not witness.exists()
    assert interceptor.account == [("write", "refused")]


def test_it_works_where_nothing_is_governed(interceptor: Any, witness: Path) -> None:
    """A process without governance runs the tool as it was written."""
    function = vars(Writing)["run"]
    data = sent(function)
    adapter = LangChainAdapter()
    adapter.register_hooks(interceptor)
    adapter.unregister_hooks()
    arrived = received(function, data)
    assert arrived(witness=str(witness)).run("x") == "written"
    assert witness.exists()
