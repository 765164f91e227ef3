"""LangChain: every tool call passes `BaseTool.run` or `BaseTool.arun`, those that agents and graphs make included.

A subclass that overrides one of them, or works in `invoke`/`ainvoke` itself, is governed there. Not seen: a tool's
function called as a plain function (`tool.func(…)`), a method of these names that is put into a class or a tool after
it was made, and tools that the model's provider runs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from agent_assembly.adapters.built_in import BuiltInAdapter
from agent_assembly.adapters.choke_point import Arguments, ChokePoint, ChokePoints, Invocation
from agent_assembly.governance import GovernanceInterceptor

# Parameters of run() and arun() that are no arguments of the tool.
_OPTIONS = frozenset(
    ("verbose", "start_color", "color", "callbacks", "tags", "metadata", "run_name", "run_id", "config", "tool_call_id")
)
# Parameters of a tool's own function that the framework fills in.
_FILLED_IN = frozenset(("run_manager", "callbacks", "config"))


def _read_run(tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation:
    options = kwargs
    if args:
        given, put = args[0], lambda value: ((value, *args[1:]), kwargs)
    elif "tool_input" in kwargs:
        given, put = kwargs["tool_input"], lambda value: ((), {**kwargs, "tool_input": value})
    else:
        # An override with a signature of its own, called by keyword.
        given = {name: value for name, value in kwargs.items() if name not in _OPTIONS}
        options = {name: value for name, value in kwargs.items() if name in _OPTIONS}
        put = lambda value: ((), {**options, **value})  # noqa: E731  # the third of three alternatives
    return _invocation(tool, given, put, options.get("tool_call_id"), options.get("config"), options.get("metadata"))


def _read_invoke(tool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation:
    def put(value: Any) -> Arguments:
        return ((value, *args[1:]), kwargs) if args else ((), {**kwargs, "input": value})

    given = args[0] if args else kwargs["input"]
    config = args[1] if len(args) > 1 else kwargs.get("config")
    if isinstance(given, dict) and given.get("type") == "tool_call":
        message = dict(given)
        return _invocation(
            tool, message["args"], lambda value: put({**message, "args": value}), message.get("id"), config, None
        )
    return _invocation(tool, given, put, None, config, None)


def _invocation(
    tool: Any, given: Any, put: Callable[[Any], Arguments], call_id: Any, config: Any, metadata: Any
) -> Invocation:
    if not issubclass(type(tool.name), str):
        raise TypeError("the tool has no name")
    if isinstance(given, dict):
        # A copy of the first level: what is judged is what will run, whoever else holds the dictionary.
        whole = dict(given)
        arguments = _without_injected(tool, whole)
        injected = {name: value for name, value in whole.items() if name not in arguments}
        args, kwargs = put(whole)

        def rebind(replaced: Mapping[str, Any]) -> Arguments:
            return put({**replaced, **injected})
    else:
        field = _text_field(tool)
        arguments = {field: given}
        args, kwargs = put(given)

        def rebind(replaced: Mapping[str, Any]) -> Arguments:
            return put(replaced[field] if set(replaced) == {field} else dict(replaced))

    return Invocation(
        tool=tool.name,
        arguments=arguments,
        args=args,
        kwargs=kwargs,
        rebind=rebind,
        call_id=call_id if isinstance(call_id, str) and call_id else None,
        agent_name=_agent_name(config, metadata),
    )


def _agent_name(config: Any, metadata: Any) -> str | None:
    if config is None:
        config = sys.modules["langchain_core.runnables.config"].var_child_runnable_config.get()
    for source in ((config or {}).get("metadata"), metadata):
        name = source.get("lc_agent_name") if isinstance(source, dict) else None
        if isinstance(name, str) and name:
            return name
    return None


def _without_injected(tool: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that the model or the caller gave, without state, stores and ids that the framework adds."""
    if hasattr(tool, "_filter_injected_args"):
        filtered: dict[str, Any] = tool._filter_injected_args(arguments)
        return filtered
    hidden = _injected_names(tool)
    return {name: value for name, value in arguments.items() if name not in hidden}


_injected: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def _injected_names(tool: Any) -> frozenset[str]:
    """The same names for versions that have no filter of their own, from the annotations of the tool's schema."""
    framework = sys.modules["langchain_core.tools.base"]
    schema = tool.args_schema
    known = frozenset(framework.FILTERED_ARGS) | frozenset(getattr(tool, "_injected_args_keys", ()))
    if isinstance(schema, dict):
        return known
    key = type(tool) if schema is None else schema
    if key not in _injected:
        # Private until it got its public name in the course of 0.3.
        read = getattr(framework, "get_all_basemodel_annotations", None) or framework._get_all_basemodel_annotations
        annotations = read(tool.get_input_schema() if schema is None else schema)
        _injected[key] = frozenset(name for name, kind in annotations.items() if framework._is_injected_arg_type(kind))
    return known | _injected[key]


def _text_field(tool: Any) -> str:
    """The name under which a text input reaches the tool: the first field of its schema, as LangChain takes it."""
    schema = tool.args_schema
    if isinstance(schema, type):
        fields = schema.model_fields if hasattr(schema, "model_fields") else getattr(schema, "__fields__", {})
        return next(iter(fields), "input")
    if schema is None:
        for name, parameter in list(inspect.signature(type(tool)._run).parameters.items())[1:]:
            if name not in _FILLED_IN and parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                return name
    return "input"


def _refuse(invocation: Invocation, reason: str) -> Any:
    if invocation.call_id is None:
        return reason
    return sys.modules["langchain_core.messages.tool"].ToolMessage(
        reason, tool_call_id=invocation.call_id, name=invocation.tool, status="error"
    )


def _hands_on(cls: type) -> bool:
    """LangChain's own classes choose in `ainvoke` between thread and coroutine, and then call `run` or `arun`."""
    return cls.__module__.startswith("langchain_core.")


CHOKE_POINTS = (
    ChokePoint("run", _read_run, _refuse),
    ChokePoint("arun", _read_run, _refuse, awaited=True),
    ChokePoint("invoke", _read_invoke, _refuse, entrance=True, passes_on=_hands_on),
    ChokePoint("ainvoke", _read_invoke, _refuse, awaited=True, entrance=True, passes_on=_hands_on),
)


class LangChainAdapter(BuiltInAdapter):
    """Governs `langchain_core` tools.

    A refusal is a `ToolMessage` of status "error", or its text alone where the call has no id.
    """

    key = "langchain"

    def prepare(self, interceptor: GovernanceInterceptor) -> None:
        self._points = ChokePoints(interceptor, self.key)

    def arm(self, module: ModuleType) -> None:
        self._points.govern(module.BaseTool, CHOKE_POINTS)

    def disarm(self) -> list[str]:
        return self._points.release()
