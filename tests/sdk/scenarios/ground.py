"""What the programs with scenarios share: beginning governance, tools whose bodies leave a mark, and the account.

`PROGRAM WAY URL MARKS`: WAY is `launched`, `first` (init_assembly() before the framework is imported) or `late` (after
everything is imported and defined). Each scenario uses tools named `read_NAME` and `delete_NAME`; a body that runs adds
a line to the file MARKS. What each scenario expects is printed as JSON, with the error of one that failed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

WAY, URL, MARKS = sys.argv[1:4]


def initialise() -> None:
    from agent_assembly import init_assembly

    init_assembly(gateway_url=URL, agent_id="bot")


if WAY == "first":
    initialise()

from langchain_core.tools import BaseTool, StructuredTool, tool  # noqa: E402

from agent_assembly import PolicyViolationError, ToolExecutionBlockedError  # noqa: E402

Expected = dict[str, int]
SCENARIOS: dict[str, tuple[Callable[[str], Any], Expected]] = {}


def scenario(**expected: int) -> Callable[[Callable[[str], Any]], Callable[[str], Any]]:
    """Register a scenario that attempts its `read` and `delete` tools as often as said."""

    def register(act: Callable[[str], Any]) -> Callable[[str], Any]:
        SCENARIOS[act.__name__] = (act, {f"{verb}_{act.__name__}": count for verb, count in expected.items()})
        return act

    return register


def mark(name: str) -> str:
    with open(MARKS, "a", encoding="utf-8") as file:
        file.write(f"{name}\n")
    return f"did {name}"


def function_tool(name: str, **options: Any) -> BaseTool:
    def body(key: str = "k") -> Any:
        return mark(name)

    body.__name__ = name
    return tool(description=name, **options)(body)


def coroutine_tool(name: str) -> BaseTool:
    async def body(key: str = "k") -> str:
        await asyncio.sleep(0)
        return mark(name)

    return StructuredTool.from_function(coroutine=body, name=name, description=name)


class Override(BaseTool):
    """Does its work in `_run` and `_arun`, as most tools do."""

    name: str = ""
    description: str = "d"

    def _run(self, key: str = "k") -> str:
        return mark(self.name)

    async def _arun(self, key: str = "k") -> str:
        return mark(self.name)


class OwnRun(Override):
    """Does its work in `run` and `arun`, past what LangChain does there."""

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return mark(self.name)

    async def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return mark(self.name)


class OwnInvoke(Override):
    """Does its work in `invoke` and `ainvoke`."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return mark(self.name)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return mark(self.name)


class Passing(Override):
    """Overrides everything and goes on to the framework each time."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return await super().ainvoke(input, config, **kwargs)

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return super().run(tool_input, *args, **kwargs)

    async def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return await super().arun(tool_input, *args, **kwargs)


class Mixin:
    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return mark(self.name)  # type: ignore[attr-defined]


class Mixed(Mixin, Override):
    """Gets its `run` from a class that is no tool."""


def denied(act: Callable[[], Any]) -> ToolExecutionBlockedError:
    try:
        result = act()
    except PolicyViolationError as error:
        return error
    raise AssertionError(f"not denied: {result!r}")


async def denied_async(awaitable: Any) -> None:
    try:
        result = await awaitable
    except ToolExecutionBlockedError:
        return
    raise AssertionError(f"not denied: {result!r}")


def pair(name: str, make: Callable[..., BaseTool] = function_tool, **options: Any) -> tuple[BaseTool, BaseTool]:
    return make(f"read_{name}", **options), make(f"delete_{name}", **options)


def classes(name: str, kind: type[BaseTool]) -> tuple[BaseTool, BaseTool]:
    return kind(name=f"read_{name}"), kind(name=f"delete_{name}")


CALL = {"key": "k"}


def message(name: str, args: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "tool_call",
        "name": name,
        "args": CALL if args is None else args,
        "id": f"call-{os.urandom(4).hex()}",
    }


def main() -> None:
    """Run every scenario, and print what each expects and its error."""
    if WAY == "late":
        initialise()
    account: dict[str, Any] = {}
    for name, (act, expected) in SCENARIOS.items():
        problem = ""
        try:
            result = act(name)
            if asyncio.iscoroutine(result):
                asyncio.run(result)
        except BaseException:
            problem = traceback.format_exc()
        account[name] = {"expected": expected, "problem": problem}
    print(json.dumps(account))
