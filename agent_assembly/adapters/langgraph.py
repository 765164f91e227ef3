"""LangGraph: what it adds to a LangChain tool call is that a call can be suspended and made again.

Its tool nodes and prebuilt agents run LangChain tools through their `invoke` and `ainvoke`, so every call of a tool
passes LangChain's choke point and is governed there, under the framework's name "langchain". Plain functions that a
tool node is given are LangChain tools by then. What is added here: `interrupt()` in a tool ends the attempt as
suspended, not as failed.
"""

from __future__ import annotations

from types import ModuleType

from agent_assembly.adapters.built_in import BuiltInAdapter
from agent_assembly.adapters.choke_point import recognise_suspension
from agent_assembly.governance import GovernanceInterceptor


class LangGraphAdapter(BuiltInAdapter):
    """Recognises LangGraph's interrupts. A tool that hands over to a parent graph has ended: it is not called again."""

    key = "langgraph"

    def prepare(self, interceptor: GovernanceInterceptor) -> None:
        pass

    def arm(self, module: ModuleType) -> None:
        suspended, handed_over = module.GraphBubbleUp, module.ParentCommand
        recognise_suspension(
            self.key, lambda error: isinstance(error, suspended) and not isinstance(error, handed_over)
        )

    def disarm(self) -> list[str]:
        recognise_suspension(self.key, None)
        return []
