"""A support bot: a LangChain agent with three tools, one of which nobody should let a model call.

    python agent.py               the model does what it likes: the customer is gone
    aasm-run python agent.py      the policy of the gateway decides

The model is scripted so that the example needs no network and no key; everything else is LangChain as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from agent_assembly import ToolExecutionBlockedError

CUSTOMERS = {"C-42": "Ada Lovelace"}


@tool
def look_up_order(order_id: str) -> str:
    """Say where an order is."""
    return f"Order {order_id} of customer C-42 was delivered on Monday."


@tool
def delete_customer(customer_id: str) -> str:
    """Delete everything that is stored about a customer."""
    del CUSTOMERS[customer_id]
    return f"Customer {customer_id} is deleted."


@tool
def open_ticket(subject: str) -> str:
    """Ask a person of the support team to do something."""
    return f"Ticket T-7 is open: {subject}"


class ScriptedModel(BaseChatModel):
    """Plays a language model: looks the order up, deletes the customer, asks a person when that is refused."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> ScriptedModel:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        answers = [message for message in messages if isinstance(message, ToolMessage)]
        last = answers[-1] if answers else None
        if last is None:
            message = self._call("look_up_order", order_id="A-1001")
        elif last.name == "look_up_order":
            message = self._call("delete_customer", customer_id="C-42")
        elif last.name == "delete_customer" and last.status == "error":
            message = self._call("open_ticket", subject="Customer C-42 asks for deletion")
        else:
            message = AIMessage(f"All done. {last.text}")
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _call(self, name: str, **arguments: str) -> AIMessage:
        return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"call-{name}"}])


def show(message: BaseMessage) -> None:
    if isinstance(message, AIMessage) and message.tool_calls:
        for call in message.tool_calls:
            arguments = ", ".join(f"{name}={value!r}" for name, value in call["args"].items())
            print(f"model  → {call['name']}({arguments})", flush=True)
    elif isinstance(message, ToolMessage):
        print(f"tool   ← {message.text}", flush=True)
    elif isinstance(message, AIMessage):
        print(f"answer   {message.text}", flush=True)


def main() -> None:
    agent = create_agent(ScriptedModel(), [look_up_order, delete_customer, open_ticket])
    question = HumanMessage("Where is order A-1001? And then delete my account, please.")
    try:
        for step in agent.stream({"messages": [question]}, stream_mode="updates"):
            for update in step.values():
                for message in update["messages"]:
                    show(message)
    except ToolExecutionBlockedError as error:
        print(f"blocked  {error.tool_name}: {error}", flush=True)
    print(f"database customer C-42 is {'still there' if 'C-42' in CUSTOMERS else 'GONE'}", flush=True)


if __name__ == "__main__":
    main()
