"""The interceptor of this process: asks for the verdict, applies the posture, keeps the record."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

from agent_assembly.canonical import digest
from agent_assembly.client.spool import SpoolFull
from agent_assembly.core.instance import AgentInstance
from agent_assembly.core.verdicts import GatewayVerdicts, NoVerdicts, local_verdict
from agent_assembly.exceptions import GatewayError
from agent_assembly.governance import (
    EnforcementMode,
    GovernanceInterceptor,
    OnDeny,
    Outcome,
    ToolCall,
    Verdict,
)

# Calls that wait for a verdict at one time from coroutines; each waits at most `check_timeout`.
_WAITING_LIMIT = 64

_GATEWAY_CODES = frozenset({"gateway_unreachable", "gateway_timeout", "not_registered", "unknown_run", "policy_error"})


class Governor(GovernanceInterceptor):
    """Governs with the instance on top of its stack; safe in threads, and after a fork in the child.

    `renew` makes an instance for this process like the given one; it is called once in each forked child.
    """

    def __init__(self, instance: AgentInstance, renew: Callable[[AgentInstance], AgentInstance]) -> None:
        self._renew = renew
        self._instances = [instance]
        # Who keeps the record of each call that is under way: its end goes where its begin went.
        self._keepers: dict[str, AgentInstance] = {}
        self._forked = False
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    # The base class declares attributes; here they follow the instance.
    @property
    def on_deny(self) -> OnDeny:  # type: ignore[override]
        return cast("OnDeny", self.instance.settings.on_deny)

    @property
    def enforcement_mode(self) -> EnforcementMode:  # type: ignore[override]
        return cast("EnforcementMode", self.instance.enforcement_mode)

    @property
    def instance(self) -> AgentInstance:
        """The instance that calls are governed as."""
        self.refresh()
        return self._instances[-1]

    def refresh(self) -> None:
        """Take over as a process of its own after a fork; costs nothing otherwise."""
        if self._forked:
            self._after_fork()

    def successor(self, instance: AgentInstance) -> AgentInstance:
        """The instance that took the place of `instance` in this process, or itself."""
        while instance.successor is not None:
            instance = instance.successor
        return instance

    def instances(self) -> list[AgentInstance]:
        """Every instance of this process, the one on top first."""
        self.refresh()
        with self._lock:
            return self._instances[::-1]

    def push(self, instance: AgentInstance) -> None:
        """Govern as `instance` until it is popped."""
        with self._lock:
            self._instances.append(instance)

    def pop(self, instance: AgentInstance) -> None:
        """Govern as before `instance` was pushed."""
        with self._lock:
            instance = self.successor(instance)
            if instance in self._instances[1:]:
                self._instances.remove(instance)

    def note_fork(self) -> None:
        """Remember, in a forked child, that everything here belongs to the parent. Does nothing else."""
        self._forked = True
        self._lock = threading.Lock()

    def _after_fork(self) -> None:
        with self._lock:
            if self._forked:
                for instance in self._instances:
                    instance.abandon()
                    instance.successor = self._renew(instance)
                self._instances = [self.successor(instance) for instance in self._instances]
                # The calls under way at the fork are the parent's to end.
                self._keepers = {}
                self._executor = None
                self._forked = False

    def before_tool(self, call: ToolCall) -> Verdict:
        try:
            return self._begin(call, *self._ask(call))
        except BaseException:
            # Ctrl-C while it waits.
            self._interrupted(call)
            raise

    async def before_tool_async(self, call: ToolCall) -> Verdict:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Another kind of event loop: it is held up for the length of the check, but nothing runs unchecked.
            return self.before_tool(call)
        asked: Future[tuple[AgentInstance, Verdict]] = Future()
        try:
            self._pool().submit(_fulfil, asked, lambda: self._ask(call))
        except RuntimeError:
            # No thread is to be had, as at the end of the interpreter. What was queued all the same finds nobody.
            if asked.cancel():
                return self.before_tool(call)
        try:
            answer = await asyncio.wrap_future(asked, loop=loop)
        except (asyncio.CancelledError, GeneratorExit):
            # The check may be under way: its record gets the end that it would otherwise lack.
            asked.add_done_callback(lambda done: self._cancelled(done, call))
            raise
        # Here and not in the thread: until the loop came back to this call, others had their turn.
        return self._begin(call, *answer)

    def after_tool(self, call: ToolCall, outcome: Outcome) -> Any:
        self.refresh()
        keeper = self._keepers.pop(call.event_id, None)
        if keeper is not None:
            try:
                ran = call.began_ns and outcome.status != "refused"
                keeper.end(call, outcome, time.monotonic_ns() - call.began_ns if ran else 0)
            except Exception:  # noqa: BLE001 - a lost record must not change what the user's tool returned
                keeper.count_loss()
        return outcome.result

    def close(self) -> None:
        """End the waiting threads; the instances are their owner's to stop."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)

    def _ask(self, call: ToolCall) -> tuple[AgentInstance, Verdict]:
        instance = self.instance
        call.attempt = instance.attempt(call)
        if call.args_json is not None:
            call.digest = digest(call.tool, instance.settings.agent_id, call.server, call.args_json)
        return instance, self._decide(instance, call)

    def _begin(self, call: ToolCall, instance: AgentInstance, verdict: Verdict) -> Verdict:
        """Apply what holds at the last moment before the body, and write the record's begin."""
        if verdict.decided_by == "gateway" and not call.unchanged():
            verdict = local_verdict(
                "deny",
                "arguments_changed",
                f"The arguments of tool `{call.tool}` changed while they were being checked. Call it again.",
            )
        verdict = self._keep(instance, call, self._posture(instance, verdict))
        call.began_ns = time.monotonic_ns()
        return verdict

    def _decide(self, instance: AgentInstance, call: ToolCall) -> Verdict:
        if instance.enforcement_mode == "disabled" and (instance.registration is not None or not instance.client):
            return NoVerdicts().decide(call, 0)
        if call.args_json is None:
            return local_verdict(
                "deny",
                "arguments_too_large",
                f"Tool `{call.tool}` was called with arguments of more than {call.limit} bytes, which is too large "
                "to be checked. Call it with less, or in parts.",
            )
        try:
            return GatewayVerdicts(instance).decide(call, instance.settings.check_timeout)
        except GatewayError as error:
            return self._without_verdict(instance, call, error)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, there is no verdict
            return local_verdict(
                "deny", "gateway_error", f"Tool `{call.tool}` could not be checked: {type(error).__name__}: {error}"
            )

    def _without_verdict(self, instance: AgentInstance, call: ToolCall, error: GatewayError) -> Verdict:
        if instance.enforcement_mode == "disabled":
            return NoVerdicts().decide(call, 0)
        code = error.code if error.code in _GATEWAY_CODES else "gateway_error"
        return local_verdict(
            "deny", code, f"Tool `{call.tool}` was not allowed to run because no verdict could be had: {error}"
        )

    def _posture(self, instance: AgentInstance, verdict: Verdict) -> Verdict:
        mode = cast("EnforcementMode", instance.enforcement_mode)
        # Redaction and approval have no way to be carried out here, so they block like a denial.
        return verdict._replace(enforcement_mode=mode, blocked=mode == "enforce" and verdict.decision != "allow")

    def _keep(self, instance: AgentInstance, call: ToolCall, verdict: Verdict) -> Verdict:
        try:
            instance.begin(call, verdict)
            self._keepers[call.event_id] = instance
            return verdict
        except SpoolFull as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, there is no record
            problem = f"its record could not be written ({type(error).__name__}: {error})"
        instance.count_loss()
        if verdict.blocked or verdict.enforcement_mode != "enforce":
            return verdict
        return local_verdict(
            "deny", "spool_full", f"Tool `{call.tool}` was not allowed to run because it cannot be recorded: {problem}."
        )._replace(blocked=True)

    def _cancelled(self, done: Future[tuple[AgentInstance, Verdict]], call: ToolCall) -> None:
        if not done.cancelled() and done.exception() is None:
            self._begin(call, *done.result())
        self._interrupted(call)

    def _interrupted(self, call: ToolCall) -> None:
        """Close the record of a call whose body will not run, since nobody waits for its verdict any more."""
        if call.event_id not in self._keepers:
            instance = self.instance
            verdict = local_verdict("deny", "unevaluated", f"Tool `{call.tool}` was given up while it was checked.")
            self._keep(instance, call, self._posture(instance, verdict))
        self.after_tool(call, Outcome("cancelled"))

    def _pool(self) -> ThreadPoolExecutor:
        self.refresh()
        executor = self._executor
        if executor is None:
            with self._lock:
                if self._executor is None:
                    self._executor = ThreadPoolExecutor(_WAITING_LIMIT, thread_name_prefix="agent-assembly-check")
                executor = self._executor
        return executor


def _fulfil(future: Future[Any], act: Callable[[], Any]) -> None:
    """Do for `future` what an executor does for its own."""
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(act())
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            future.set_exception(error)
