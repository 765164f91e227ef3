"""The built-in adapters, one row each, and the order in which adapters are armed.

Imported before the user's program, so that the bootstrap knows which imports to wait for: see the import rules.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ENTRY_POINT_GROUP = "agent_assembly.adapters"

# Documented ranks by framework key. A key without a built-in adapter keeps its rank for a third party's.
PRIORITIES: Mapping[str, int] = {
    "langchain": 0,
    "langgraph": 1,
    "crewai": 2,
    "pydantic_ai": 3,
    "openai": 4,
    "google_adk": 5,
    "mcp": 99,
}
THIRD_PARTY_PRIORITY = 50


class AdapterRow:
    """One built-in adapter: its framework, the modules whose import arms it, and the class that does the work.

    `package` is the top-level name that shows whether the framework is there, `distribution` the installed project
    whose version counts, `versions` the specifiers of the versions that were run.
    """

    __slots__ = ("adapter", "distribution", "key", "package", "triggers", "versions")

    def __init__(
        self,
        key: str,
        *,
        package: str,
        triggers: tuple[str, ...],
        adapter: str,
        distribution: str,
        versions: tuple[str, ...],
    ) -> None:
        self.key = key
        self.package = package
        self.triggers = triggers
        self.adapter = adapter
        self.distribution = distribution
        self.versions = versions

    @property
    def priority(self) -> int:
        return PRIORITIES[self.key]

    def __repr__(self) -> str:
        return f"AdapterRow({self.key!r})"


ADAPTERS: tuple[AdapterRow, ...] = (
    AdapterRow(
        "langchain",
        package="langchain_core",
        triggers=("langchain_core.tools.base",),
        adapter="agent_assembly.adapters.langchain:LangChainAdapter",
        distribution="langchain-core",
        versions=(">=0.3,<2",),
    ),
    AdapterRow(
        "langgraph",
        package="langgraph",
        triggers=("langgraph.errors",),
        adapter="agent_assembly.adapters.langgraph:LangGraphAdapter",
        distribution="langgraph",
        versions=(">=0.6,<2",),
    ),
)


def row_of(key: str) -> AdapterRow:
    """Return the built-in row of `key`; raise KeyError when there is none."""
    for row in ADAPTERS:
        if row.key == key:
            return row
    raise KeyError(key)
