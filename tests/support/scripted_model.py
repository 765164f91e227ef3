"""A chat model that plays a script: no network, and the same answers each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

Call = tuple[str, Mapping[str, Any]]


class ScriptedModel(BaseChatModel):
    """Calls the tools of `turns`, one list of (name, arguments) for each answer, then says what it was told last.

    Which turn it is follows from the conversation alone, so one model serves any number of runs. The id of a call is
    `call-TURN-POSITION`, both counted from 0.
    """

    turns: list[list[Call]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedModel:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        turn = sum(isinstance(message, AIMessage) for message in messages)
        if turn < len(self.turns):
            calls = [
                {"name": name, "args": dict(arguments), "id": f"call-{turn}-{position}"}
                for position, (name, arguments) in enumerate(self.turns[turn])
            ]
            answer = AIMessage("", tool_calls=calls)
        else:
            answer = AIMessage(f"done: {messages[-1].content}")
        return ChatResult(generations=[ChatGeneration(message=answer)])


def model_calling(*calls: Call) -> ScriptedModel:
    """Return a model that makes `calls` in one answer, in parallel, and ends with its next."""
    return ScriptedModel(turns=[list(calls)])
