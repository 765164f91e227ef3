"""The life cycle of governance in a process: `init_assembly()`, the launcher's way in, and shutdown.

One `_Runtime` at most is active. Contexts stack on it: the launcher's at the bottom, above it the one of a program that
calls `init_assembly()` itself.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from agent_assembly.adapters.registry import AdapterRegistry
from agent_assembly.client.gateway import GatewayClient
from agent_assembly.core.context import AdapterState, AssemblyContext
from agent_assembly.core.gateway_resolver import ResolvedGateway, presumed_gateway, resolve_gateway, same_gateway
from agent_assembly.core.governor import Governor
from agent_assembly.core.instance import AgentInstance
from agent_assembly.core.modes import resolve_mode
from agent_assembly.core.settings import BY_NAME, Settings, resolve_settings
from agent_assembly.core.spawn import with_lineage
from agent_assembly.core.workers import Workers
from agent_assembly.exceptions import AgentError, AssemblyError, ConfigurationError, GatewayError
from agent_assembly.governance import install_interceptor

# Registering while a framework is being imported must not hold the program up for long; calls try again.
_REGISTER_AT_IMPORT = 2.0
_REGISTER_AT_INIT = 10.0
_STRICTNESS = {"disabled": 0, "observe": 1, "enforce": 2, None: 2}
_LINEAGE = ("parent_agent_id", "delegation_reason", "spawned_by_tool", "depth")

_lock = threading.RLock()
_runtime: _Runtime | None = None
_exit_handler = False


def init_assembly(
    gateway_url: str | None = None,
    api_key: str | None = None,
    agent_id: str | None = None,
    mode: str | None = None,
    enforcement_mode: str | None = None,
    parent_agent_id: str | None = None,
    team_id: str | None = None,
    delegation_reason: str | None = None,
    spawned_by_tool: str | None = None,
    depth: int | None = None,
    on_deny: str | None = None,
) -> AssemblyContext:
    """Put this process under governance and return the context; all of it succeeds, or nothing has changed.

    What is not given is resolved: `AASM_*` variable, `config.yaml` in the home directory, a local gateway found or
    started. A second call with a compatible configuration returns the same context. Under `aasm-run` it returns a
    context of its own with the identity that was given, and leaving that gives back the launcher's.

    Governs this process, what it forks, and the workers that `multiprocessing` starts; other programs that it starts
    are governed under `aasm-run` alone. Call it early: a method that was bound before (`f = tool.run`) stays as it was.

    Raises ConfigurationError before any side effect for settings that cannot be used, GatewayError when the gateway
    cannot be reached, AgentError when it does not take the agent, AssemblyError when a hook cannot be installed.
    """
    arguments = {
        "gateway_url": gateway_url,
        "api_key": api_key,
        "agent_id": agent_id,
        "mode": mode,
        "enforcement_mode": enforcement_mode,
        "parent_agent_id": parent_agent_id,
        "team_id": team_id,
        "delegation_reason": delegation_reason,
        "spawned_by_tool": spawned_by_tool,
        "depth": depth,
        "on_deny": on_deny,
    }
    given = {name: value for name, value in arguments.items() if value is not None}
    if given.get("gateway_url") == "":
        raise ConfigurationError("gateway_url is required")
    settings = with_lineage(resolve_settings(given))
    with _lock:
        runtime = _runtime
        if runtime is None and _launch_environment is not None:
            runtime = _begin_launched(_launch_environment)
        if runtime is None:
            return _begin(settings)
        if len(runtime.contexts) == 1 and runtime.launched:
            return runtime.take_over(given, settings)
        return runtime.again(given, settings)


def activate(environ: Mapping[str, str]) -> AssemblyContext:
    """Begin governance in a program that `aasm-run` started; the bootstrap calls it at the first governed import.

    `environ` is the environment that the program was started with.
    A gateway that cannot be reached is no error here: calls are denied under enforce, and registering is tried again at
    each. Idempotent. Raises ConfigurationError for settings that cannot be used and AssemblyError for hooks that cannot
    be installed.
    """
    with _lock:
        expect_activation(environ)
        runtime = _runtime or _begin_launched(environ)
        return runtime.contexts[0]


_launch_environment: Mapping[str, str] | None = None


def expect_activation(environ: Mapping[str, str]) -> None:
    """Note that the bootstrap runs in this process, though nothing was governed yet."""
    global _launch_environment
    _launch_environment = environ


def inherit(settings: Settings, gateway: ResolvedGateway) -> None:
    """Begin governance in a worker process as it is in the process that started the worker."""
    with _lock:
        if _runtime is None:
            mode, note = resolve_mode(settings.mode)
            runtime = _Runtime(settings, mode, note, gateway, launched=True)
            try:
                runtime.arm()
            except BaseException:
                runtime.undo()
                raise
            _publish(runtime)


def current_context() -> AssemblyContext | None:
    """The context that governs this process now, or None."""
    with _lock:
        return _runtime.contexts[-1] if _runtime is not None else None


def _begin(settings: Settings) -> AssemblyContext:
    mode, note = resolve_mode(settings.mode)
    gateway = _gateway_for(settings)
    runtime = _Runtime(settings, mode, note, gateway, launched=False)
    try:
        if gateway.url is not None:
            _register(runtime.governor.instance, _REGISTER_AT_INIT, required=settings.enforcement_mode != "disabled")
        runtime.arm()
    except BaseException:
        runtime.undo()
        raise
    _publish(runtime)
    return runtime.contexts[0]


def _begin_launched(environ: Mapping[str, str]) -> _Runtime:
    settings = resolve_settings(None, environ)
    mode, note = resolve_mode(settings.mode)
    problems: list[str] = []
    gateway = _gateway_for(settings, problems)
    runtime = _Runtime(settings, mode, note, gateway, launched=True, problems=problems)
    try:
        runtime.arm()
    except BaseException:
        runtime.undo()
        raise
    if gateway.url is not None:
        _register(runtime.governor.instance, min(_REGISTER_AT_IMPORT, settings.check_timeout), required=False)
    _publish(runtime)
    return runtime


def _gateway_for(settings: Settings, problems: list[str] | None = None) -> ResolvedGateway:
    try:
        return resolve_gateway(settings)
    except (ConfigurationError, GatewayError) as error:
        if problems is None and settings.enforcement_mode != "disabled":
            raise
        if problems is not None:
            problems.append(str(error))
        return presumed_gateway(settings)


def _register(instance: AgentInstance, timeout: float, *, required: bool) -> None:
    try:
        instance.register(timeout)
    except GatewayError as error:
        if not required:
            return
        if error.status is not None and error.status not in (429, 503) and error.status < 500:
            raise AgentError(f"the gateway does not take agent {instance.settings.agent_id}: {error}") from error
        raise


def _publish(runtime: _Runtime) -> None:
    global _runtime, _exit_handler
    install_interceptor(runtime.governor)
    _runtime = runtime
    if not _exit_handler:
        atexit.register(_at_exit)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)
        _exit_handler = True


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    if _runtime is not None:
        _runtime.governor.note_fork()


def _at_exit() -> None:
    runtime = _runtime
    if runtime is not None and runtime.pid == os.getpid():
        runtime.settle()


class _Runtime:
    """Everything that is active: governor, adapters, client, and the contexts that were handed out."""

    def __init__(
        self,
        settings: Settings,
        mode: str,
        mode_note: str | None,
        gateway: ResolvedGateway,
        *,
        launched: bool,
        problems: list[str] | None = None,
    ) -> None:
        self.settings = settings
        self.mode = mode
        self.mode_note = mode_note
        self.gateway = gateway
        self.launched = launched
        self.pid = os.getpid()
        self.registry = AdapterRegistry()
        self.workers = Workers(inherit, (settings, gateway))
        self.problems = problems if problems is not None else []
        instance = self._instance(settings)
        self.governor = Governor(instance, self._renewed)
        self.contexts = [self._context(settings, instance)]

    def _client(self) -> GatewayClient | None:
        if self.gateway.url is None:
            return None
        return GatewayClient(self.gateway.url, home=self.gateway.home, api_key=self.settings.api_key)

    def _instance(self, settings: Settings) -> AgentInstance:
        return AgentInstance(settings, self._client(), self._frameworks)

    def _renewed(self, instance: AgentInstance) -> AgentInstance:
        self.pid = os.getpid()
        return self._instance(instance.settings)

    def _context(self, settings: Settings, instance: AgentInstance) -> AssemblyContext:
        return AssemblyContext(
            settings=settings,
            mode=self.mode,
            mode_note=self.mode_note,
            gateway_url=self.gateway.url,
            gateway_source=self.gateway.source,
            governor=self.governor,
            instance=instance,
            adapter_states=self.adapter_states,
            problems=self.problems,
            end=self.end,
        )

    def adapter_states(self) -> list[AdapterState]:
        return [AdapterState(report.key, report.framework_version, report.state) for report in self.registry.report()]

    def _frameworks(self) -> list[dict[str, str]]:
        return [
            {"name": state.name, "version": state.framework_version or ""}
            for state in self.adapter_states()
            if not state.state.startswith("failed")
        ]

    def arm(self) -> None:
        """Install the hooks of every framework that can be imported, in the documented order."""
        self.registry.arm(self.governor)
        if _launch_environment is None and self.settings.children != "off":
            self.workers.arm()

    def take_over(self, given: Mapping[str, Any], settings: Settings) -> AssemblyContext:
        """Govern as the identity that the program gives itself, within what the launcher imposed."""
        base = self.contexts[0].settings
        self._refuse_weaker(given, settings)
        own = base.replaced(
            "argument",
            **{name: settings[name] for name in ("agent_id", "team_id", "on_deny", *_LINEAGE) if name in given},
            **({"enforcement_mode": settings.enforcement_mode} if "enforcement_mode" in given else {}),
        )
        own = with_lineage(own)
        if all(own[name] == base[name] for name in own):
            # The same agent: the context is the program's own to leave, the instance stays the launcher's.
            context = self._context(own, self.contexts[0].instance)
            self.contexts.append(context)
            return context
        instance = self._instance(own)
        if self.gateway.url is not None:
            try:
                _register(instance, _REGISTER_AT_INIT, required=own.enforcement_mode not in ("observe", "disabled"))
            except BaseException:
                instance.stop(0.0)
                raise
        self.governor.push(instance)
        context = self._context(own, instance)
        self.contexts.append(context)
        return context

    def _refuse_weaker(self, given: Mapping[str, Any], settings: Settings) -> None:
        base = self.contexts[0]
        if "gateway_url" in given and not same_gateway(settings.gateway_url, self.gateway.url):
            raise ConfigurationError(
                f"gateway_url {settings.gateway_url} differs from {self.gateway.url}, which aasm-run set; "
                "leave it out, or pass it to aasm-run"
            )
        if "enforcement_mode" in given and _STRICTNESS[settings.enforcement_mode] < _STRICTNESS[base.enforcement_mode]:
            raise ConfigurationError(
                f"enforcement_mode {settings.enforcement_mode} is weaker than {base.enforcement_mode}, "
                "which aasm-run set; leave it out, or pass it to aasm-run"
            )
        if "mode" in given and resolve_mode(settings.mode)[0] != self.mode:
            raise ConfigurationError(f"mode {settings.mode} differs from {self.mode}, which aasm-run set; leave it out")

    def again(self, given: Mapping[str, Any], settings: Settings) -> AssemblyContext:
        """Return the active context for a call that is compatible with it; raise ConfigurationError otherwise."""
        active = self.contexts[-1]
        for name in given:
            if not self._compatible(name, settings, active):
                mine = self.gateway.url if name == "gateway_url" else active.settings[name]
                shown = "" if BY_NAME[name].secret else f" ({settings[name]!r}, active is {mine!r})"
                raise ConfigurationError(
                    f"governance is active with another {name}{shown}; shut it down first, or leave {name} out"
                )
        return active

    def _compatible(self, name: str, settings: Settings, active: AssemblyContext) -> bool:
        if name == "gateway_url":
            return same_gateway(settings.gateway_url, self.gateway.url)
        if name == "mode":
            return resolve_mode(settings.mode)[0] == self.mode
        if name == "enforcement_mode" and settings.enforcement_mode == active.enforcement_mode:
            return True
        return bool(settings[name] == active.settings[name])

    def end(self, context: AssemblyContext) -> None:
        """End `context`: give back the launcher's below it, or end governance with the last one.

        The launcher's own is not the program's to end: it stays active.
        """
        with _lock:
            if not context.active or (self.launched and context is self.contexts[0]):
                return
            if context is not self.contexts[0]:
                context.active = False
                self.contexts.remove(context)
                instance = context.instance
                if instance is not self.contexts[0].instance:
                    self.governor.pop(instance)
                    instance.stop()
                return
            self._end_all()

    def _end_all(self) -> None:
        global _runtime
        errors = self.undo()
        for context in self.contexts:
            context.active = False
        if _runtime is self:
            install_interceptor(None)
            _runtime = None
        if errors:
            raise AssemblyError("shutting down: " + "; ".join(errors))

    def undo(self) -> list[str]:
        """Take back everything, in reverse order; return what went wrong."""
        errors: list[str] = []

        def attempt(what: str, act: Callable[[], object]) -> None:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - all of it is tried; what went wrong is reported together
                errors.append(f"{what}: {error}")

        attempt("workers", self.workers.disarm)
        errors += [f"hooks: {error}" for error in self.registry.unregister_hooks()]
        for instance in self.governor.instances():
            attempt("records", instance.stop)
        attempt("waiting checks", self.governor.close)
        return errors

    def settle(self) -> None:
        """Send what waits before the process ends; hooks stay on, as code may still run."""
        for instance in self.governor.instances():
            instance.settle()
