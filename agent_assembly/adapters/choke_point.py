"""The governed call: what is put in place of a method through which a framework's tool calls pass.

An adapter describes its choke points as rows; this module asks for the verdict, lets the body run or not, and closes
the record. It knows no framework.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from agent_assembly.adapters.hooks import Patches
from agent_assembly.exceptions import AdapterValidationError
from agent_assembly.governance import (
    GovernanceInterceptor,
    Outcome,
    Status,
    ToolCall,
    Verdict,
    blocked_error,
    current_call,
)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Invocation(NamedTuple):
    """One call of a choke point, as it reads: what the verdict is to see and what the method is to get.

    `args` and `kwargs` go on to the method when the verdict leaves the call as it is; `rebind(arguments)` makes them
    anew from arguments that the verdict has replaced.
    """

    tool: str
    arguments: Mapping[str, Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    rebind: Callable[[Mapping[str, Any]], Arguments]
    call_id: str | None = None
    agent_name: str | None = None
    server: str | None = None


def _never(_: type) -> bool:
    return False


class ChokePoint(NamedTuple):
    """One method of one class through which tool calls pass; `awaited` when it is to be awaited.

    `read(instance, args, kwargs)` says what the call is; `refuse(invocation, reason)` makes the result with which the
    framework shows a refusal to the model. `entrance` marks a method that leads to the others and needs a verdict only
    where a subclass does its own work in it; `passes_on(cls)` names the classes whose override is known not to.
    """

    attribute: str
    read: Callable[[Any, tuple[Any, ...], dict[str, Any]], Invocation]
    refuse: Callable[[Invocation, str], Any]
    awaited: bool = False
    entrance: bool = False
    passes_on: Callable[[type], bool] = _never


_suspensions: dict[str, Callable[[BaseException], bool]] = {}


def recognise_suspension(key: str, test: Callable[[BaseException], bool] | None) -> None:
    """Let `test` say which exceptions mean that a framework suspends a call, to make it again; None forgets it."""
    if test is None:
        _suspensions.pop(key, None)
    else:
        _suspensions[key] = test


def status_of(error: BaseException) -> Status:
    """How a call ended that ended with `error`."""
    if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)):
        return "cancelled"
    if any(test(error) for test in tuple(_suspensions.values())):
        return "suspended"
    return "raised"


class _Unreadable:
    """Stands for arguments that could not be read; the canonical form calls it opaque."""


class _Pass:
    """Lets one verdict count for the layers of one call: an override, and the method that it goes on to.

    Good for one use, for the same tool object with the same arguments, for a layer that the call has not been through,
    and only while the layer that issued it runs.
    """

    __slots__ = ("_call", "_instance", "_layers", "_ticket")

    def __init__(self, call: ToolCall, instance: Any, layers: tuple[_Layer, ...]) -> None:
        self._call: ToolCall | None = call
        self._instance = instance
        self._layers = layers
        self._ticket = [True]

    def take(self, call: ToolCall, instance: Any, layer: _Layer) -> _Pass | None:
        """Use it up for `call`; return the one for the layers behind, or None where it does not hold."""
        mine = self._call
        if mine is None or self._instance is not instance or layer in self._layers:
            return None
        if mine.tool != call.tool or call.args_json is None or mine.args_json != call.args_json:
            return None
        try:
            # One thread gets it, also when copies of the context share the pass.
            self._ticket.pop()
        except IndexError:
            return None
        return _Pass(mine, instance, (*self._layers, layer))

    def close(self) -> None:
        self._ticket.clear()
        self._call = self._instance = None


_passes: ContextVar[_Pass | None] = ContextVar("agent_assembly_pass", default=None)


class _Carrying:
    """Hand `issued` to the layers behind, for the length of a `with` block; None takes away what there was."""

    __slots__ = ("_issued", "_token")

    def __init__(self, issued: _Pass | None) -> None:
        self._issued = issued

    def __enter__(self) -> None:
        self._token = _passes.set(self._issued)

    def __exit__(self, *_: object) -> None:
        if self._issued is not None:
            self._issued.close()
        try:
            _passes.reset(self._token)
        except ValueError:
            # Closed in another context than it was opened in: the pass itself is closed, whoever still sees it.
            pass


class _Opened(NamedTuple):
    """A call that has been read, and the pass that lets it through without a verdict of its own."""

    call: ToolCall
    invocation: Invocation
    problem: Exception | None
    behind: _Pass | None


class _Cleared(NamedTuple):
    """A call that has been judged, and what the method gets if it runs."""

    verdict: Verdict
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    issued: _Pass | None
    cause: Exception | None = None


class ChokePoints:
    """Puts governed calls in place of the choke points of one class and all its subclasses, and takes them away."""

    def __init__(self, interceptor: GovernanceInterceptor, framework: str) -> None:
        self.interceptor = interceptor
        self.framework = framework
        self.patches = Patches()
        _in_force[framework] = self

    def __reduce__(self) -> tuple[Any, ...]:
        # A class that travels by value (cloudpickle) is governed by what is in force where it arrives.
        return _arrive, (self.framework,)

    def govern(self, base: type, points: tuple[ChokePoint, ...]) -> None:
        """Govern `points` of `base` and of every subclass, present and future; raise when one of them is missing.

        Doing it again, for a class that a reload has made anew too, adds only what is not governed yet.
        """
        missing = [point.attribute for point in points if not callable(getattr(base, point.attribute, None))]
        if missing:
            raise AdapterValidationError(
                f"{base.__module__}.{base.__qualname__} has no {' and no '.join(missing)}: the tool calls of this "
                f"version of {self.framework} cannot be governed; install a supported one"
            )
        for point in points:
            own = vars(base).get(point.attribute)
            if not point.entrance and not self.patches.holds(own):
                self._wrap(base, point, inspect.getattr_static(base, point.attribute), last=True)
        self.patches.each_subclass(base, lambda cls: self._override(base, cls, points))

    def release(self) -> list[str]:
        """Undo everything; return the places that someone else has patched over."""
        if _in_force.get(self.framework) is self:
            del _in_force[self.framework]
        return self.patches.undo()

    def _override(self, base: type, cls: type, points: tuple[ChokePoint, ...]) -> None:
        for point in points:
            owner = next(each for each in cls.__mro__ if point.attribute in vars(each))
            # What a governed class defines is seen to there; a mixin in front of it is not.
            seen_to = issubclass(owner, base) and owner is not cls
            known = owner in base.__mro__ or point.passes_on(owner)
            original = vars(owner)[point.attribute]
            if not seen_to and not known and not self.patches.holds(original):
                self._wrap(cls, point, original, last=False)

    def _wrap(self, owner: type, point: ChokePoint, original: Any, *, last: bool) -> None:
        function = getattr(original, "__func__", original)
        awaited = point.awaited or inspect.iscoroutinefunction(function)
        replacement = (_governed_async if awaited else _governed)(_Layer(self, point, original, last))
        functools.update_wrapper(replacement, function)
        self.patches.patch(owner, point.attribute, replacement)


_in_force: dict[str, ChokePoints] = {}


class _NotGoverned:
    """Stands for the choke points of a process in which there are none."""

    patches = Patches(active=False)


def _arrive(framework: str) -> Any:
    return _in_force.get(framework) or _NotGoverned


class _Layer:
    """One method that was replaced: the steps of a governed call. The two wrappers differ only in what they await.

    `last` marks the method whose body is the tool's own: nothing behind it shares its verdict.
    """

    __slots__ = ("last", "original", "owner", "point")

    def __init__(self, owner: ChokePoints, point: ChokePoint, original: Any, last: bool) -> None:
        self.owner = owner
        self.point = point
        self.original = original
        self.last = last

    def bound(self, instance: Any) -> Callable[..., Any]:
        """The original method of `instance`."""
        bind = getattr(type(self.original), "__get__", None)
        method: Callable[..., Any] = self.original if bind is None else bind(self.original, instance, type(instance))
        return method

    def open(self, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Opened:
        """Read the call; what cannot be read becomes an opaque argument and a problem."""
        problem: Exception | None = None
        try:
            invocation = self.point.read(instance, args, kwargs)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the call is not known
            problem = error
            unread = {"arguments": _Unreadable()}
            invocation = Invocation(type(instance).__name__, unread, args, kwargs, lambda _: (args, kwargs))
        call = ToolCall(
            tool=invocation.tool,
            framework=self.owner.framework,
            arguments=invocation.arguments,
            call_id=invocation.call_id,
            server=invocation.server,
            agent_name=invocation.agent_name,
        )
        held = None if problem else _passes.get()
        return _Opened(call, invocation, problem, held.take(call, instance, self) if held is not None else None)

    def clear(self, opened: _Opened, instance: Any, verdict: Verdict) -> _Cleared:
        """Judge what was opened by `verdict`: a call that could not be read does not run under enforcement."""
        call, invocation = opened.call, opened.invocation
        if verdict.blocked:
            return _Cleared(verdict, (), {}, None)
        if opened.problem is not None:
            return self.without_verdict(opened, instance, "its arguments could not be read", opened.problem)
        args, kwargs, seen = invocation.args, invocation.kwargs, call
        if verdict.arguments is not None:
            args, kwargs = invocation.rebind(verdict.arguments)
            seen = ToolCall(tool=call.tool, framework=call.framework, arguments=verdict.arguments)
        return _Cleared(verdict, args, kwargs, None if self.last else _Pass(seen, instance, (self,)))

    def without_verdict(self, opened: _Opened, instance: Any, what: str, error: Exception) -> _Cleared:
        """What holds where no verdict could be had: nothing runs under enforcement."""
        call, invocation = opened.call, opened.invocation
        mode = self.owner.interceptor.enforcement_mode
        verdict = Verdict(
            decision="deny",
            reason=f"Tool `{call.tool}` was not allowed to run because {what}: {type(error).__name__}: {error}",
            code="arguments_opaque" if error is opened.problem else "gateway_error",
            blocked=mode not in ("observe", "disabled"),
            decided_by="agent",
            enforcement_mode=mode,
            evaluated=False,
        )
        issued = None if self.last else _Pass(call, instance, (self,))
        return _Cleared(verdict, invocation.args, invocation.kwargs, issued, error)

    def refusal(self, opened: _Opened, cleared: _Cleared) -> Any:
        """The framework's refusal where it was asked for; else raise the error of a blocked call."""
        cause = cleared.cause
        if self.owner.interceptor.on_deny == "refuse":
            try:
                return self.point.refuse(opened.invocation, cleared.verdict.reason)
            except Exception as error:  # noqa: BLE001 - there is no refusal then, but there is an error to raise
                cause = error
        blocked = blocked_error(opened.call, cleared.verdict)
        if cause is not None:
            blocked.__cause__ = cause
        raise blocked

    def close(self, call: ToolCall, outcome: Outcome) -> Any:
        """End the record and give the result that the caller is to get."""
        try:
            return self.owner.interceptor.after_tool(call, outcome)
        except Exception:  # noqa: BLE001 - the tool has run: a broken interceptor does not change what it did
            return outcome.result

    async def close_async(self, call: ToolCall, outcome: Outcome) -> Any:
        try:
            return await self.owner.interceptor.after_tool_async(call, outcome)
        except Exception:  # noqa: BLE001 - as above
            return outcome.result


# An interceptor that is interrupted while it decides gives no verdict, and ends what it began itself: what is no
# Exception passes both wrappers at that point.


def _governed(layer: _Layer) -> Callable[..., Any]:
    def governed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not layer.owner.patches.active:
            return layer.bound(self)(*args, **kwargs)
        opened = layer.open(self, args, kwargs)
        if opened.behind is not None:
            with _Carrying(None if layer.last else opened.behind):
                return layer.bound(self)(*args, **kwargs)
        call = opened.call
        try:
            cleared = layer.clear(opened, self, layer.owner.interceptor.before_tool(call))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, there is no verdict
            cleared = layer.without_verdict(opened, self, "no verdict could be had", error)
        if cleared.verdict.blocked:
            layer.close(call, Outcome("refused"))
            return layer.refusal(opened, cleared)
        try:
            with current_call(call), _Carrying(cleared.issued):
                result = layer.bound(self)(*cleared.args, **cleared.kwargs)
        except BaseException as error:
            layer.close(call, Outcome(status_of(error), error=error))
            raise
        return layer.close(call, Outcome("returned", result))

    return governed


def _governed_async(layer: _Layer) -> Callable[..., Any]:
    async def governed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not layer.owner.patches.active:
            result = layer.bound(self)(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result
        opened = layer.open(self, args, kwargs)
        if opened.behind is not None:
            with _Carrying(None if layer.last else opened.behind):
                result = layer.bound(self)(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result
        call = opened.call
        try:
            cleared = layer.clear(opened, self, await layer.owner.interceptor.before_tool_async(call))
        except Exception as error:  # noqa: BLE001 - whatever went wrong, there is no verdict
            cleared = layer.without_verdict(opened, self, "no verdict could be had", error)
        if cleared.verdict.blocked:
            await layer.close_async(call, Outcome("refused"))
            return layer.refusal(opened, cleared)
        try:
            with current_call(call), _Carrying(cleared.issued):
                result = layer.bound(self)(*cleared.args, **cleared.kwargs)
                if inspect.isawaitable(result):
                    result = await result
        except Exception as error:
            await layer.close_async(call, Outcome(status_of(error), error=error))
            raise
        except BaseException as error:
            # A coroutine that is being closed or cancelled must not wait for anything more.
            layer.close(call, Outcome(status_of(error), error=error))
            raise
        return await layer.close_async(call, Outcome("returned", result))

    return governed
