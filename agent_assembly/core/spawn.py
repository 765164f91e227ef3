"""Lineage: who spawned the agent that is about to be initialised, inside a process and across processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from agent_assembly.core.settings import BY_NAME, Settings


class SpawnContext(NamedTuple):
    """The parent of agents that are initialised while it is current."""

    parent_agent_id: str
    depth: int
    spawned_by_tool: str | None = None
    delegation_reason: str | None = None


_current: ContextVar[SpawnContext | None] = ContextVar("agent_assembly_spawn", default=None)


def current_spawn_context() -> SpawnContext | None:
    """The innermost `spawn_context` around the caller, or None."""
    return _current.get()


@contextmanager
def spawn_context(
    parent_agent_id: str,
    *,
    depth: int | None = None,
    spawned_by_tool: str | None = None,
    delegation_reason: str | None = None,
) -> Iterator[SpawnContext]:
    """Give agents that are initialised in the block their lineage; `depth` is theirs.

    It is one more than the outer block's, and outside any block one more than that of this process (`AASM_DEPTH`). Also
    fills the parent's part of `child_environment()`. Raises ConfigurationError for values that the settings of the same
    names do not take.
    """
    if depth is None:
        outer = _current.get()
        depth = (outer.depth if outer is not None else _depth_of_process()) + 1
    context = SpawnContext(
        _checked("parent_agent_id", parent_agent_id),
        _checked("depth", depth),
        None if spawned_by_tool is None else _checked("spawned_by_tool", spawned_by_tool),
        None if delegation_reason is None else _checked("delegation_reason", delegation_reason),
    )
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def _checked(name: str, value: object) -> Any:
    return BY_NAME[name].parse(value, "spawn_context")


def _depth_of_process() -> int:
    row = BY_NAME["depth"]
    given = os.environ.get(row.variable)
    return int(row.parse(given, f"variable {row.variable}")) if given else 0


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a copy of `environ` (default: this process's) that carries the current lineage to a child process."""
    child = dict(os.environ if environ is None else environ)
    context = _current.get()
    if context is not None:
        child["AASM_PARENT_AGENT_ID"] = context.parent_agent_id
        child["AASM_DEPTH"] = str(context.depth)
        for variable, value in (
            ("AASM_SPAWNED_BY_TOOL", context.spawned_by_tool),
            ("AASM_DELEGATION_REASON", context.delegation_reason),
        ):
            if value is None:
                child.pop(variable, None)
            else:
                child[variable] = value
    return child


def with_lineage(settings: Settings) -> Settings:
    """Take the lineage that nobody gave as an argument from the spawn context around the caller, if there is one.

    All of it: what variables say is how this process was spawned, not the agent in the block.
    """
    context = _current.get()
    if context is None:
        return settings
    return settings.replaced(
        "spawn context",
        **{name: value for name, value in context._asdict().items() if settings.source(name) != "argument"},
    )
