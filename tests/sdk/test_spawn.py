"""Lineage: who spawned an agent, inside a process and across processes."""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agent_assembly.core.settings import Settings, resolve_settings
from agent_assembly.core.spawn import (
    SpawnContext,
    child_environment,
    current_spawn_context,
    spawn_context,
    with_lineage,
)
from agent_assembly.exceptions import ConfigurationError

LINEAGE = ("parent_agent_id", "depth", "spawned_by_tool", "delegation_reason")


@pytest.fixture(autouse=True)
def _no_lineage_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LINEAGE:
        monkeypatch.delenv(f"AASM_{name.upper()}", raising=False)


def resolved(tmp_path: Path, arguments: dict[str, Any] | None = None, **variables: str) -> Settings:
    return with_lineage(resolve_settings(arguments, {"AASM_HOME": str(tmp_path), **variables}))


def test_blocks_nest_and_end() -> None:
    """Depth grows by one with each block, and every block gives back the one around it, also after an exception."""
    assert current_spawn_context() is None
    with spawn_context("a") as outer:
        assert outer == SpawnContext("a", 1) == current_spawn_context()
        with suppress(KeyError), spawn_context("b", spawned_by_tool="t", delegation_reason="r") as inner:
            assert inner == SpawnContext("b", 2, "t", "r")
            raise KeyError
        assert current_spawn_context() is outer
        with spawn_context("c", depth=9):
            assert (current_spawn_context() or outer).depth == 9
    assert current_spawn_context() is None


def test_the_depth_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent spawned in a child process stands one below that process, not at the top again."""
    monkeypatch.setenv("AASM_DEPTH", "3")
    with spawn_context("a") as context:
        assert context.depth == 4
        assert child_environment()["AASM_DEPTH"] == "4"
    monkeypatch.setenv("AASM_DEPTH", "many")
    with pytest.raises(ConfigurationError, match=r"depth \(from variable AASM_DEPTH\)"), spawn_context("a"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize(
    "arguments",
    [
        {"parent_agent_id": "a b"},
        {"parent_agent_id": ""},
        {"parent_agent_id": None},
        {"parent_agent_id": "a", "depth": -1},
        {"parent_agent_id": "a", "depth": 1001},
        {"parent_agent_id": "a", "depth": "x"},
        {"parent_agent_id": "a", "delegation_reason": "x" * 257},
        {"parent_agent_id": "a", "delegation_reason": "a\0b"},
        {"parent_agent_id": "a", "spawned_by_tool": "a\nb"},
        {"parent_agent_id": "a", "spawned_by_tool": 5},
    ],
)
def test_a_block_takes_only_what_the_settings_take(arguments: dict[str, Any]) -> None:
    """A lineage that no gateway would accept is refused where it is written, before the block runs."""
    with pytest.raises(ConfigurationError, match="from spawn_context"), spawn_context(**arguments):
        pytest.fail("the block must not run")
    assert current_spawn_context() is None
    with spawn_context("a", delegation_reason="x" * 256):
        pass


def test_an_argument_wins_over_the_block_and_the_block_over_variables(tmp_path: Path) -> None:
    """What is written at the call counts first; what variables say is about this process, not about the new agent."""
    variables = {
        "AASM_PARENT_AGENT_ID": "variable",
        "AASM_DEPTH": "7",
        "AASM_SPAWNED_BY_TOOL": "tool of this process",
        "AASM_DELEGATION_REASON": "reason of this process",
    }
    outside = resolved(tmp_path, None, **variables)
    assert [outside[name] for name in LINEAGE] == ["variable", 7, "tool of this process", "reason of this process"]
    with spawn_context("block", depth=2):
        inside = resolved(tmp_path, {"parent_agent_id": "argument"}, **variables)
        assert [inside[name] for name in LINEAGE] == ["argument", 2, None, None]
        assert [inside.source(name) for name in LINEAGE] == ["argument", *["spawn context"] * 3]
    assert resolved(tmp_path).parent_agent_id is None


def test_the_environment_of_a_child() -> None:
    """A copy that carries the lineage; what the block does not say is not inherited from this process's own."""
    base = {"KEEP": "1", "AASM_SPAWNED_BY_TOOL": "old", "AASM_DELEGATION_REASON": "old", "AASM_DEPTH": "1"}
    assert child_environment(base) == base
    with spawn_context("a", depth=2, delegation_reason="new"):
        child = child_environment(base)
    assert child == {"KEEP": "1", "AASM_PARENT_AGENT_ID": "a", "AASM_DEPTH": "2", "AASM_DELEGATION_REASON": "new"}
    assert base["AASM_DEPTH"] == "1"
    assert child_environment() == dict(os.environ)


def test_a_real_child_knows_its_parent(tmp_path: Path) -> None:
    """A program started with that environment resolves the lineage, and its own blocks stand below it."""
    program = (
        f"import json, sys; sys.path[:] = {sys.path!r}\n"
        "from agent_assembly import resolve_settings, spawn_context\n"
        "s = resolve_settings()\n"
        "with spawn_context('below') as c: print(json.dumps([s.parent_agent_id, s.depth, s.spawned_by_tool, c.depth]))"
    )
    with spawn_context("above", spawned_by_tool="tool é"):
        environ = {**child_environment(), "AASM_HOME": str(tmp_path), "PYTHONUTF8": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert json.loads(result.stdout) == ["above", 1, "tool é", 2]


def test_threads_and_tasks_have_their_own() -> None:
    """A block does not leak into another thread or task; a copied context carries it."""
    seen: dict[str, Any] = {}

    async def task(name: str) -> None:
        with spawn_context(name):
            await asyncio.sleep(0.01)
            seen[name] = current_spawn_context()

    async def main() -> None:
        await asyncio.gather(task("a"), task("b"))
        seen["after"] = current_spawn_context()

    asyncio.run(main())
    assert (seen["a"].parent_agent_id, seen["b"].parent_agent_id, seen["after"]) == ("a", "b", None)

    def look(name: str) -> None:
        seen[name] = current_spawn_context()

    with spawn_context("outer"):
        thread = threading.Thread(target=contextvars.Context().run, args=(look, "fresh"))
        thread.start()
        thread.join()
        contextvars.copy_context().run(look, "copied")
    assert seen["fresh"] is None
    assert seen["copied"].parent_agent_id == "outer"
