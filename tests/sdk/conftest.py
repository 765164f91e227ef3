"""What the tests of the SDK share: an initialised process, and tools that leave a mark when their body runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, tool
from support.gateway import Gateway

from agent_assembly import AssemblyContext, current_context, init_assembly

POLICY = """
apiVersion: agent-assembly/v1
kind: Policy
metadata: {name: house}
default: allow
rules:
  - id: no-deletes
    on: tool
    match: {tool: "delete_*"}
    effect: deny
    reason: Records are kept for ten years.
"""


class Marks:
    """Tools whose bodies write files, so that a test can see what ran."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.read_record: BaseTool = self._tool("read_record")
        self.delete_record: BaseTool = self._tool("delete_record")

    def _tool(self, name: str) -> BaseTool:
        def body(key: str) -> str:
            (self.directory / f"{name}-{key}").touch()
            return f"{name} {key}"

        return tool(name, description=name)(body)

    def ran(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path / "marks")


@pytest.fixture
def house(start_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway whose policy denies what begins with `delete_`."""
    return start_gateway(policy=POLICY)


@pytest.fixture
def initialise(house: Gateway) -> Iterator[Callable[..., AssemblyContext]]:
    """Call `init_assembly()` against the `house` gateway; governance is ended after the test."""

    def initialise(**arguments: Any) -> AssemblyContext:
        return init_assembly(**{"gateway_url": house.url, "agent_id": "bot", **arguments})

    yield initialise
    while (context := current_context()) is not None:
        context.shutdown()
