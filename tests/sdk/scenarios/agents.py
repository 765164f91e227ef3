"""Agents and graphs that call tools, in every way that LangGraph runs them. See `ground.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ground import CALL, denied, denied_async, main, mark, message, pair, scenario
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_tool_call
from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.checkpoint.memory import MemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, Send, interrupt

from agent_assembly import ToolExecutionBlockedError

sys.path.append(str(Path(__file__).resolve().parents[2]))

from support.scripted_model import model_calling

HELLO = {"messages": [("user", "hi")]}


def graph(tools: list[BaseTool], *names: str, **options: Any) -> Any:
    """Return an agent whose model calls the tools named, in one step."""
    model = model_calling(*[(name, CALL) for name in names])
    made = StateGraph(MessagesState)
    made.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    made.add_node("tools", ToolNode(tools, handle_tool_errors=False))
    made.add_edge(START, "model")
    made.add_conditional_edges("model", tools_condition)
    made.add_edge("tools", "model")
    return made.compile(**options)


def agent(tools: list[BaseTool], *names: str, **options: Any) -> Any:
    return create_agent(model_calling(*[(name, CALL) for name in names]), tools, **options)


MAKERS: tuple[Callable[..., Any], ...] = (graph, agent)


@scenario(read=6, delete=6)
def in_step(name: str) -> None:
    read, delete = pair(name)
    for make in MAKERS:
        for run in (
            lambda made: made.invoke(HELLO),
            lambda made: [*made.stream(HELLO)],
            lambda made: made.batch([HELLO]),
        ):
            run(make([read], read.name))
            denied(lambda make=make, run=run: run(make([delete], delete.name)))


@scenario(read=6, delete=6)
async def awaited(name: str) -> None:
    read, delete = pair(name)

    async def streamed(made: Any) -> None:
        async for _ in made.astream(HELLO, stream_mode=["values", "messages"]):
            pass

    async def events(made: Any) -> None:
        async for _ in made.astream_events(HELLO, version="v2"):
            pass

    for make in MAKERS:
        for run in (lambda made: made.ainvoke(HELLO), streamed, events):
            await run(make([read], read.name))
            await denied_async(run(make([delete], delete.name)))


@scenario(read=8)
async def parallel(name: str) -> None:
    """Four calls in one step are four attempts, in step and awaited."""
    read, _ = pair(name)
    made = graph([read], *[read.name] * 4)
    made.invoke(HELLO)
    await made.ainvoke(HELLO)


@scenario(read=1, delete=1)
def tool_node(name: str) -> None:
    read, delete = pair(name)
    made = StateGraph(MessagesState)
    made.add_node("tools", ToolNode([read, delete], handle_tool_errors=True))
    made.add_edge(START, "tools")
    calls = [{**message(each.name), "type": "tool_call"} for each in (read, delete)]
    answers = made.compile().invoke({"messages": [AIMessage("", tool_calls=calls)]})["messages"][-2:]
    assert [answer.status for answer in answers] == ["success", "error"]


@scenario(read=2, delete=1)
def agents_as_tools(name: str) -> None:
    """The agent that is a tool is a call, and so is what it calls."""
    read, delete = pair(name)

    def body(verb: str, inner: BaseTool) -> BaseTool:
        def ask(key: str) -> str:
            mark(f"{verb}_{name}")
            return str(graph([inner], inner.name).invoke(HELLO)["messages"][-1].content)

        return StructuredTool.from_function(ask, name=f"{verb}_{name}", description="d")

    outer = body("read", delete)
    denied(lambda: agent([outer], outer.name).invoke(HELLO))
    read.invoke(CALL)


@scenario(read=1, delete=1)
def subgraphs(name: str) -> None:
    read, delete = pair(name)

    def around(inner: Any) -> Any:
        made = StateGraph(MessagesState)
        made.add_node("inner", inner)
        made.add_edge(START, "inner")
        return made.compile()

    around(graph([read], read.name)).invoke(HELLO)
    denied(lambda: around(graph([delete], delete.name)).invoke(HELLO))


@scenario(read=5, delete=1)
def fan_out(name: str) -> None:
    read, delete = pair(name)

    def made(tool: BaseTool, times: int) -> Any:
        fan = StateGraph(MessagesState)
        fan.add_node("work", lambda state: {"messages": [str(tool.invoke(CALL))]})
        fan.add_conditional_edges(START, lambda state: [Send("work", state) for _ in range(times)], ["work"])
        return fan.compile()

    made(read, 5).invoke(HELLO)
    denied(lambda: made(delete, 1).invoke(HELLO))


@scenario(read=1, delete=1)
def functional(name: str) -> None:
    read, delete = pair(name)

    @task
    def step(verb: str) -> str:
        return str((read if verb == "read" else delete).invoke(CALL))

    @entrypoint()
    def flow(verb: str) -> str:
        return step(verb).result()

    flow.invoke("read")
    denied(lambda: flow.invoke("delete"))


# LangGraph's own limit.
if sys.version_info >= (3, 11):

    @scenario(read=1, delete=1)
    async def functional_awaited(name: str) -> None:
        read, delete = pair(name)

        @task
        async def step(verb: str) -> str:
            return str(await (read if verb == "read" else delete).ainvoke(CALL))

        @entrypoint()
        async def flow(verb: str) -> str:
            return await step(verb)

        await flow.ainvoke("read")
        await denied_async(flow.ainvoke("delete"))


@scenario(read=3)
def interrupts(name: str) -> None:
    """An interrupted call is made again: two attempts; a resumed run repeats nothing else."""
    answers: list[str] = []

    def ask(key: str) -> str:
        mark(f"read_{name}")
        answers.append(interrupt("really?"))
        return "done"

    asking = StructuredTool.from_function(ask, name=f"read_{name}", description="d")
    made = graph([asking], asking.name, checkpointer=MemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    made.invoke(HELLO, config)
    made.invoke(Command(resume="yes"), config)
    assert answers == ["yes"]
    pair(name)[0].invoke(CALL)


@scenario(read=3, delete=1)
def middleware(name: str) -> None:
    """Middleware that calls the tool again makes a new attempt each time, and sees denials."""
    read, delete = pair(name)
    seen: list[str] = []

    @wrap_tool_call
    def twice(request: Any, handler: Callable[[Any], Any]) -> Any:
        handler(request)
        return handler(request)

    @wrap_tool_call
    def forgiving(request: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(request)
        except ToolExecutionBlockedError as error:
            seen.append(str(error))
            return handler(request.override(tool=read, tool_call={**request.tool_call, "name": read.name}))

    agent([read], read.name, middleware=[twice]).invoke(HELLO)
    agent([delete, read], delete.name, middleware=[forgiving]).invoke(HELLO)
    assert len(seen) == 1


if __name__ == "__main__":
    main()
