"""The tool calls of agents and graphs are governed, however the agent is built and however it is run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, tool
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode, create_react_agent, tools_condition
from langgraph.types import Command, interrupt
from support.scripted_model import ScriptedModel, model_calling

from agent_assembly.exceptions import ToolExecutionBlockedError

try:
    from langchain.agents import create_agent
    from langchain.agents.middleware import wrap_tool_call
except ImportError:
    # LangChain before 1.0 has neither; its agents are the graphs below.
    create_agent = wrap_tool_call = None

# LangGraph 1 announces that create_react_agent will move; programs use it where it is.
pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")

HELLO = {"messages": [("user", "hi")]}


def nodes(tools: Sequence[BaseTool], **options: Any) -> ToolNode:
    # Older versions turn every exception of a tool into an answer unless told otherwise.
    return ToolNode(tools, **{"handle_tool_errors": False, **options})


def state_graph(model: ScriptedModel, tools: Sequence[BaseTool], **options: Any) -> Any:
    checkpointer = options.pop("checkpointer", None)
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", nodes(tools, **options))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile(name="graph", checkpointer=checkpointer)


AGENTS: dict[str, Callable[..., Any]] = {
    "StateGraph": state_graph,
    "create_react_agent": lambda model, tools: create_react_agent(model, nodes(tools), name="helper"),
}
if create_agent is not None:
    AGENTS["create_agent"] = lambda model, tools: create_agent(model, tools, name="helper")


async def _astream(agent: Any) -> Any:
    return [state async for state in agent.astream(HELLO, stream_mode="values")][-1]


async def _astream_events(agent: Any) -> Any:
    events = [event async for event in agent.astream_events(HELLO, version="v2")]
    return events[-1]["data"]["output"]


RUNS: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda agent: agent.invoke(HELLO),
    "ainvoke": lambda agent: asyncio.run(agent.ainvoke(HELLO)),
    "stream": lambda agent: list(agent.stream(HELLO, stream_mode="values"))[-1],
    "astream": lambda agent: asyncio.run(_astream(agent)),
    "astream_events": lambda agent: asyncio.run(_astream_events(agent)),
    "batch": lambda agent: agent.batch([HELLO])[0],
    "abatch": lambda agent: asyncio.run(agent.abatch([HELLO]))[0],
}


def adding(witness: Path, *, asynchronous: bool = False) -> BaseTool:
    def add(first: int, second: int) -> int:
        witness.write_text("ran")
        return first + second

    async def aadd(first: int, second: int) -> int:
        await asyncio.sleep(0)
        return add(first, second)

    return StructuredTool.from_function(add, aadd if asynchronous else None, name="add", description="adds")


def answers(result: Any) -> list[ToolMessage]:
    return [message for message in result["messages"] if isinstance(message, ToolMessage)]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync tool", "async tool"])
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", AGENTS)
class TestEveryAgent:
    def test_an_allowed_call_runs_once(
        self, kind: str, run: str, asynchronous: bool, witness: Path, interceptor: Any
    ) -> None:
        """One verdict and one end for the model's call, under the id that the model gave it."""
        agent = AGENTS[kind](
            model_calling(("add", {"first": 1, "second": 2})), [adding(witness, asynchronous=asynchronous)]
        )
        assert RUNS[run](agent)["messages"][-1].content == "done: 3"
        assert interceptor.account == [("add", "returned")]
        assert interceptor.arguments() == [{"first": 1, "second": 2}]
        assert interceptor.calls[0].call_id == "call-0-0"
        assert interceptor.calls[0].framework == "langchain"

    def test_a_denied_call_ends_the_run(
        self, kind: str, run: str, asynchronous: bool, witness: Path, interceptor: Any
    ) -> None:
        """The error of a denied call passes the graph unchanged, and the tool's body has not run."""
        interceptor.deny("add")
        agent = AGENTS[kind](
            model_calling(("add", {"first": 1, "second": 2})), [adding(witness, asynchronous=asynchronous)]
        )
        with pytest.raises(ToolExecutionBlockedError) as caught:
            RUNS[run](agent)
        assert not witness.exists()
        assert caught.value.tool_name == "add"
        assert interceptor.account == [("add", "refused")]

    def test_a_refused_call_lets_the_model_go_on(
        self, kind: str, run: str, asynchronous: bool, witness: Path, interceptor: Any
    ) -> None:
        """With on_deny "refuse" the model sees a failed tool call with the reason, and the run goes on."""
        interceptor.deny("add", "ask a person")
        interceptor.on_deny = "refuse"
        agent = AGENTS[kind](
            model_calling(("add", {"first": 1, "second": 2})), [adding(witness, asynchronous=asynchronous)]
        )
        result = RUNS[run](agent)
        assert not witness.exists()
        assert result["messages"][-1].content == "done: ask a person"
        assert [(answer.status, answer.tool_call_id) for answer in answers(result)] == [("error", "call-0-0")]
        assert interceptor.account == [("add", "refused")]


@pytest.mark.parametrize("run", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("kind", AGENTS)
def test_parallel_calls_are_judged_one_by_one(kind: str, run: str, witness: Path, interceptor: Any) -> None:
    """Several calls in one answer of the model: a verdict for each, the denied one refused and the others run."""

    @tool
    def erase(first: int) -> int:
        """Erase."""
        witness.write_text("erased")
        return first

    @tool
    def keep(first: int) -> int:
        """Keep."""
        return first

    interceptor.deny("erase")
    interceptor.on_deny = "refuse"
    model = model_calling(("keep", {"first": 1}), ("erase", {"first": 2}), ("keep", {"first": 3}))
    result = RUNS[run](AGENTS[kind](model, [keep, erase]))
    assert not witness.exists()
    assert sorted(interceptor.account) == [("erase", "refused"), ("keep", "returned"), ("keep", "returned")]
    assert sorted(call.call_id for call in interceptor.calls) == ["call-0-0", "call-0-1", "call-0-2"]
    assert sorted((answer.status, answer.tool_call_id) for answer in answers(result)) == [
        ("error", "call-0-1"),
        ("success", "call-0-0"),
        ("success", "call-0-2"),
    ]


@pytest.mark.parametrize("run", ["invoke", "ainvoke"])
@pytest.mark.parametrize("kind", AGENTS)
def test_an_agent_used_as_a_tool_is_a_call_with_calls_inside(
    kind: str, run: str, witness: Path, interceptor: Any
) -> None:
    """The outer call and those of the inner agent each have a verdict; the inner ones name the outer one."""
    inner = AGENTS[kind](model_calling(("add", {"first": 1, "second": 2})), [adding(witness)])

    @tool
    def ask(question: str) -> str:
        """Ask the other agent."""
        return str(inner.invoke({"messages": [("user", question)]})["messages"][-1].content)

    outer = AGENTS[kind](model_calling(("ask", {"question": "how many"})), [ask])
    assert RUNS[run](outer)["messages"][-1].content == "done: done: 3"
    assert interceptor.account == [("ask", "returned"), ("add", "returned")]
    assert interceptor.calls[1].parent_event_id == interceptor.calls[0].event_id


# LangChain announces that as_tool() may still change.
@pytest.mark.filterwarnings("ignore:This API is in beta")
def test_a_graph_turned_into_a_tool_is_governed(witness: Path, interceptor: Any) -> None:
    """A compiled graph that is a tool by as_tool() is a tool like any other."""
    graph = state_graph(model_calling(("add", {"first": 1, "second": 2})), [adding(witness)])
    made = graph.as_tool(name="count", description="counts", arg_types={"messages": list})
    made.invoke(HELLO)
    assert interceptor.account == [("count", "returned"), ("add", "returned")]
    interceptor.deny("count")
    with pytest.raises(ToolExecutionBlockedError):
        made.invoke(HELLO)
    assert interceptor.account[2:] == [("count", "refused")]


@pytest.mark.parametrize("run", ["invoke", "ainvoke"])
def test_a_graph_inside_a_graph_is_governed(run: str, witness: Path, interceptor: Any) -> None:
    """A graph that is a node of another one adds no verdict and loses none."""
    inner = state_graph(model_calling(("add", {"first": 1, "second": 2})), [adding(witness)])
    outer = StateGraph(MessagesState)
    outer.add_node("inner", inner)
    outer.add_edge(START, "inner")
    assert RUNS[run](outer.compile())["messages"][-1].content == "done: 3"
    assert interceptor.account == [("add", "returned")]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_interrupted_call_is_suspended_and_made_again(asynchronous: bool, interceptor: Any) -> None:
    """A call that LangGraph interrupts ends as suspended; after the answer it is a second attempt with the same id."""

    @tool
    def book(place: str) -> str:
        """Book."""
        return f"{place}: {interrupt('sure?')}"

    graph = state_graph(model_calling(("book", {"place": "Rome"})), [book], checkpointer=MemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    for step in (HELLO, Command(resume="yes")):
        result = asyncio.run(graph.ainvoke(step, config)) if asynchronous else graph.invoke(step, config)
    assert result["messages"][-1].content == "done: Rome: yes"
    assert interceptor.account == [("book", "suspended"), ("book", "returned")]
    assert [call.call_id for call in interceptor.calls] == ["call-0-0", "call-0-0"]


def test_an_interrupted_call_can_be_denied_when_it_is_made_again(witness: Path, interceptor: Any) -> None:
    """The second attempt has a verdict of its own: what was allowed before the pause need not be after it."""

    @tool
    def book(place: str) -> str:
        """Book."""
        answer = interrupt("sure?")
        witness.write_text("booked")
        return str(answer)

    graph = state_graph(model_calling(("book", {"place": "Rome"})), [book], checkpointer=MemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    graph.invoke(HELLO, config)
    interceptor.deny("book")
    with pytest.raises(ToolExecutionBlockedError):
        graph.invoke(Command(resume="yes"), config)
    assert not witness.exists()
    assert interceptor.account == [("book", "suspended"), ("book", "refused")]


def test_handing_over_to_a_parent_graph_is_no_suspension(interceptor: Any) -> None:
    """A tool that leaves its graph for the one above is not called again: it has ended."""
    from langgraph.errors import ParentCommand

    @tool
    def leave(place: str) -> str:
        """Leave."""
        raise ParentCommand(Command(goto=place))

    with pytest.raises(ParentCommand):
        leave.invoke("above")
    assert interceptor.account == [("leave", "raised")]


def test_handling_errors_is_the_users_choice(witness: Path, interceptor: Any) -> None:
    """A tool node that turns errors into answers turns a denial into one as well; the body has not run."""
    interceptor.deny("add", "ask a person")
    model = model_calling(("add", {"first": 1, "second": 2}))
    result = state_graph(model, [adding(witness)], handle_tool_errors=True).invoke(HELLO)
    assert not witness.exists()
    assert answers(result)[0].status == "error"
    assert "ask a person" in answers(result)[0].content
    assert interceptor.account == [("add", "refused")]


def test_a_retried_node_makes_a_new_attempt(interceptor: Any) -> None:
    """A node that its retry policy runs again asks again, with the same call id."""
    from langgraph.types import RetryPolicy

    tries: list[int] = []

    @tool
    def flaky(number: int) -> int:
        """Flaky."""
        tries.append(number)
        if len(tries) == 1:
            raise ConnectionError("once")
        return number

    model = model_calling(("flaky", {"number": 5}))
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    policy = RetryPolicy(initial_interval=0.01, jitter=False)
    graph.add_node("tools", nodes([flaky]), retry_policy=policy)
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    assert graph.compile().invoke(HELLO)["messages"][-1].content == "done: 5"
    assert interceptor.account == [("flaky", "raised"), ("flaky", "returned")]
    assert [call.call_id for call in interceptor.calls] == ["call-0-0", "call-0-0"]


@pytest.mark.parametrize("run", ["invoke", "ainvoke"])
def test_injected_state_is_not_the_models_argument(run: str, interceptor: Any) -> None:
    """What the graph injects reaches the tool, and neither the verdict nor the record."""
    seen: list[tuple[int, str]] = []

    @tool
    def count(
        word: str, state: Annotated[dict[str, Any], InjectedState], call: Annotated[str, InjectedToolCallId]
    ) -> str:
        """Count."""
        seen.append((len(state["messages"]), call))
        return word

    RUNS[run](state_graph(model_calling(("count", {"word": "a"})), [count]))
    assert seen == [(2, "call-0-0")]
    assert interceptor.arguments() == [{"word": "a"}]


@pytest.mark.parametrize("run", ["invoke", "ainvoke"])
def test_a_subclass_without_a_schema_hides_its_injected_state(run: str, interceptor: Any) -> None:
    """The same for a tool whose schema is the signature of its own method."""

    class Count(BaseTool):
        name: str = "count"
        description: str = "counts"

        def _run(self, word: str, state: Annotated[Any, InjectedState]) -> str:
            return f"{word} {len(state['messages'])}"

    result = RUNS[run](state_graph(model_calling(("count", {"word": "a"})), [Count()]))
    assert result["messages"][-1].content == "done: a 2"
    assert interceptor.arguments() == [{"word": "a"}]


@pytest.mark.parametrize("run", ["invoke", "ainvoke"])
def test_the_tool_runtime_is_not_the_models_argument(run: str, interceptor: Any) -> None:
    """A tool that takes LangChain's runtime gets it, and the verdict does not."""
    runtime = pytest.importorskip("langchain.tools", reason="needs LangChain 1").__dict__.get("ToolRuntime")
    if runtime is None:
        pytest.skip("needs LangChain 1")

    def count(word: str, runtime: Any) -> str:
        return f"{word} {len(runtime.state['messages'])}"

    count.__annotations__["runtime"] = runtime
    made = StructuredTool.from_function(count, name="count", description="counts")
    result = RUNS[run](AGENTS["create_agent"](model_calling(("count", {"word": "a"})), [made]))
    assert result["messages"][-1].content == "done: a 2"
    assert interceptor.arguments() == [{"word": "a"}]


@pytest.mark.parametrize("run", ["invoke", "ainvoke"])
def test_a_command_is_a_result(run: str, interceptor: Any) -> None:
    """A tool that answers with a Command has returned, and the graph does what it says."""

    @tool
    def note(word: str, call: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Note."""
        return Command(update={"messages": [ToolMessage(f"noted {word}", tool_call_id=call)]})

    result = RUNS[run](state_graph(model_calling(("note", {"word": "a"})), [note]))
    assert result["messages"][-1].content == "done: noted a"
    assert interceptor.account == [("note", "returned")]


def test_plain_functions_are_tools(interceptor: Any) -> None:
    """A function that a tool node is given is governed under its own name."""

    def shout(word: str) -> str:
        """Shout."""
        return word.upper()

    result = state_graph(model_calling(("shout", {"word": "a"})), [shout]).invoke(HELLO)
    assert result["messages"][-1].content == "done: A"
    assert interceptor.account == [("shout", "returned")]


@pytest.mark.parametrize("run", ["invoke", "ainvoke"])
def test_a_tool_that_ends_the_run_can_be_refused(run: str, witness: Path, interceptor: Any) -> None:
    """The refusal of a tool whose result is the agent's last word is the agent's last word."""

    @tool(return_direct=True)
    def answer(text: str) -> str:
        """Answer."""
        witness.write_text("ran")
        return text

    interceptor.deny("answer", "ask a person")
    interceptor.on_deny = "refuse"
    for kind in AGENTS.keys() - {"StateGraph"}:
        result = RUNS[run](AGENTS[kind](model_calling(("answer", {"text": "a"})), [answer]))
        assert result["messages"][-1].content == "ask a person"
        assert not witness.exists()


def test_a_model_can_go_another_way(witness: Path, interceptor: Any) -> None:
    """After a refusal the model's next call is judged on its own."""

    @tool
    def other(number: int) -> int:
        """Other."""
        return number

    interceptor.deny("add")
    interceptor.on_deny = "refuse"
    model = ScriptedModel(turns=[[("add", {"first": 1, "second": 2})], [("other", {"number": 7})]])
    assert state_graph(model, [adding(witness), other]).invoke(HELLO)["messages"][-1].content == "done: 7"
    assert interceptor.account == [("add", "refused"), ("other", "returned")]


@pytest.mark.skipif(create_agent is None, reason="needs LangChain 1")
class TestLangChainAgents:
    @pytest.mark.parametrize("run", RUNS)
    def test_the_agents_name_goes_with_the_call(self, run: str, witness: Path, interceptor: Any) -> None:
        """A call carries the name of the agent that made it; a tool called by a tool has it too."""

        @tool
        def outer(first: int) -> Any:
            """Outer."""
            return adding(witness).invoke({"first": first, "second": 1})

        RUNS[run](AGENTS["create_agent"](model_calling(("outer", {"first": 1})), [outer]))
        assert [call.agent_name for call in interceptor.calls] == ["helper", "helper"]

    def test_middleware_that_calls_twice_makes_two_attempts(self, witness: Path, interceptor: Any) -> None:
        """A middleware that runs the handler twice makes two attempts of one call."""

        @wrap_tool_call
        def twice(request: Any, handler: Any) -> Any:
            handler(request)
            return handler(request)

        agent = create_agent(
            model_calling(("add", {"first": 1, "second": 2})), [adding(witness)], middleware=[twice], name="helper"
        )
        agent.invoke(HELLO)
        assert interceptor.account == [("add", "returned")] * 2
        assert [call.call_id for call in interceptor.calls] == ["call-0-0"] * 2

    def test_middleware_can_catch_a_denial(self, witness: Path, interceptor: Any) -> None:
        """A middleware that catches the documented error may answer in the tool's stead."""

        @wrap_tool_call
        def soften(request: Any, handler: Any) -> Any:
            try:
                return handler(request)
            except ToolExecutionBlockedError as error:
                return ToolMessage(f"softly: {error.reason}", tool_call_id=request.tool_call["id"])

        interceptor.deny("add")
        agent = create_agent(model_calling(("add", {"first": 1, "second": 2})), [adding(witness)], middleware=[soften])
        assert agent.invoke(HELLO)["messages"][-1].content == "done: softly: not here"
        assert not witness.exists()

    def test_middleware_that_changes_the_arguments_is_judged_by_what_it_made(
        self, witness: Path, interceptor: Any
    ) -> None:
        """The verdict is about the arguments that run, not about those that the model gave."""

        @wrap_tool_call
        def change(request: Any, handler: Any) -> Any:
            request.tool_call["args"] = {"first": 40, "second": 2}
            return handler(request)

        agent = create_agent(model_calling(("add", {"first": 1, "second": 2})), [adding(witness)], middleware=[change])
        assert agent.invoke(HELLO)["messages"][-1].content == "done: 42"
        assert interceptor.arguments() == [{"first": 40, "second": 2}]
