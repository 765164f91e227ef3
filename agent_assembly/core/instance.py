"""One process that runs as one agent: its registration, its spool, and the thread that empties the spool."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from agent_assembly._version import __version__
from agent_assembly.client import records
from agent_assembly.client.gateway import GatewayClient, Registration
from agent_assembly.client.records import Writer
from agent_assembly.client.shipper import Shipper, host_name
from agent_assembly.client.spool import Spool, SpoolFull
from agent_assembly.core.settings import Settings
from agent_assembly.exceptions import AssemblyError, GatewayError
from agent_assembly.governance import Outcome, ToolCall, Verdict

_EXIT_FLUSH = 2.0
_LEAVE = 1.0
_ATTEMPTS_LIMIT = 4096


class AgentInstance:
    """An instance in the gateway's registry, and the keeper of its records. Safe in threads, not across a fork.

    `client` is None when no gateway is known (enforcement disabled); records then stay in the spool.
    """

    def __init__(
        self, settings: Settings, client: GatewayClient | None, frameworks: Callable[[], list[dict[str, str]]]
    ) -> None:
        self.settings = settings
        self.client = client
        self.instance_id = os.urandom(16).hex()
        self.registration: Registration | None = None
        self.last_error: GatewayError | None = None
        self._confirmed_mode: str | None = None
        # Set in a forked child: who goes on in its place.
        self.successor: AgentInstance | None = None
        self._frameworks = frameworks
        self._registering = threading.Lock()
        self._lost = 0
        self._attempts: dict[tuple[str, str], int] = {}
        self._open: set[str] = set()
        self._stopped = False
        self.writer = Writer(settings.agent_id, self.instance_id, settings.run_id or "")
        header = records.segment_header(self.writer, os.getpid(), host_name(), __version__)
        self.spool = Spool(os.path.join(settings.home, "spool"), self.instance_id, header, settings.spool_max_bytes)
        self.shipper = Shipper(self.spool, self.instance_id, self._send, self._heartbeat)

    @property
    def enforcement_mode(self) -> str:
        """As in force: the gateway's answer, before it answered what was asked for, and enforce when nothing was."""
        return self._confirmed_mode or self.settings.enforcement_mode or "enforce"

    def register(self, timeout: float) -> Registration:
        """Register once; later calls return the same registration. Raise GatewayError when there is none to be had."""
        if self.registration is not None:
            return self.registration
        deadline = time.monotonic() + timeout
        if not self._registering.acquire(timeout=timeout):
            raise GatewayError(f"registering did not end within {timeout:g} s", code="gateway_timeout")
        try:
            if self.registration is None:
                self.registration = self._ask_registration(max(deadline - time.monotonic(), 0.01))
                # Outlives the registration: losing it loosens nothing.
                self._confirmed_mode = self.registration.enforcement_mode
            return self.registration
        except GatewayError as error:
            self.last_error = error
            raise
        finally:
            self._registering.release()

    def forget_registration(self, stale: Registration) -> None:
        """Register anew at the next use, unless another thread already did."""
        if self.registration is stale:
            self.registration = None

    def _ask_registration(self, timeout: float) -> Registration:
        if self.client is None:
            raise GatewayError("no gateway is known", code="gateway_unreachable")
        settings = self.settings
        asked: dict[str, Any] = {
            "agent_id": settings.agent_id,
            "instance_id": self.instance_id,
            "run_id": settings.run_id,
            "sdk_version": __version__,
            "python_version": platform.python_version(),
            "frameworks": self._frameworks(),
            "enforcement_mode": settings.enforcement_mode,
            "parent_agent_id": settings.parent_agent_id,
            "team_id": settings.team_id,
            "delegation_reason": settings.delegation_reason,
            "spawned_by_tool": settings.spawned_by_tool,
            "depth": settings.depth,
            "pid": os.getpid(),
            "host": host_name(),
        }
        return self.client.register({name: value for name, value in asked.items() if value is not None}, timeout)

    def check(self, call: ToolCall, timeout: float) -> Mapping[str, Any]:
        """Ask the gateway for the verdict on `call`; register first where that is still to be done."""
        deadline = time.monotonic() + timeout
        for last in (False, True):
            registration = self.register(max(deadline - time.monotonic(), 0.01))
            assert self.client is not None
            try:
                return self.client.check(registration.session_token, call, max(deadline - time.monotonic(), 0.01))
            except GatewayError as error:
                if last or error.status != 401:
                    raise
                # The home was made anew, or the gateway took this instance for dead.
                self.forget_registration(registration)
        raise AssertionError("unreachable")

    def attempt(self, call: ToolCall) -> int:
        """Count the attempts of a call that its framework makes again under one id."""
        if call.call_id == call.event_id:
            return 1
        key = (call.tool, call.call_id)
        count = self._attempts.pop(key, 0) + 1
        self._attempts[key] = count
        if len(self._attempts) > _ATTEMPTS_LIMIT:
            # Forgets the oldest; another thread may be doing the same.
            self._attempts.pop(next(iter(list(self._attempts))), None)
        return count

    def begin(self, call: ToolCall, verdict: Verdict) -> None:
        """Accept the record's begin; raise SpoolFull when it cannot be kept."""
        self.spool.begin(call.event_id, records.begin_record(self.writer, call, verdict))
        self._open.add(call.event_id)
        self.shipper.notify()

    def end(self, call: ToolCall, outcome: Outcome, duration_ns: int) -> None:
        """Accept the record's end, whose room `begin` reserved."""
        self._open.discard(call.event_id)
        try:
            self.spool.end(call.event_id, records.end_record(self.writer, call, outcome, duration_ns))
        except SpoolFull:
            self.count_loss()
        if self._stopped and not self._open:
            self.stop()
        else:
            self.shipper.notify()

    def count_loss(self) -> None:
        """Count a record that could not be kept; the number is recorded as soon as that can be."""
        self._lost += 1

    @property
    def lost(self) -> int:
        return self._lost

    def _report_loss(self) -> None:
        lost = self._lost
        if lost:
            try:
                self.spool.note(records.loss_record(self.writer, os.urandom(16).hex(), lost))
            except SpoolFull:
                return
            self._lost -= lost

    def _send(self, batch: bytes, timeout: float) -> None:
        registration = self.register(timeout)
        assert self.client is not None
        try:
            answer = self.client.send_records(registration.session_token, batch, timeout)
        except GatewayError as error:
            if error.status == 401:
                self.forget_registration(registration)
            raise
        # What the gateway will never take is not sent for ever, and not dropped in silence either.
        rejected = answer.get("rejected")
        if isinstance(rejected, list) and rejected:
            self._lost += len(rejected)
        self._report_loss()

    def _heartbeat(self) -> None:
        registration = self.register(_LEAVE)
        assert self.client is not None
        self.client.heartbeat(registration.session_token, self.settings.agent_id, _LEAVE)

    def stop(self, timeout: float = _EXIT_FLUSH) -> None:
        """Send what waits, leave the registry, and close the spool; what could not be sent is left for adoption.

        While calls are under way the spool stays open; the last of them closes it.
        """
        self._stopped = True
        self.settle(timeout)
        if not self._open:
            self.spool.close()
            if self.client is not None:
                self.client.close()

    def settle(self, timeout: float = _EXIT_FLUSH) -> None:
        """Send what waits and leave the registry, in `timeout` seconds; a later call would register again."""
        deadline = time.monotonic() + timeout
        try:
            self.shipper.stop(timeout)
            delivered = self.client is not None and self.shipper.flush(max(deadline - time.monotonic(), 0.0))
            registration = self.registration
            if delivered and registration is not None and self.client is not None and not self._open:
                self.client.leave(registration.session_token, self.settings.agent_id, _LEAVE)
                self.registration = None
        except AssemblyError as error:
            # Leaving is a courtesy: the gateway notices a dead process by itself.
            self.shipper.problem = str(error)
        self.spool.delete_shipped()

    def abandon(self) -> None:
        """Let go, in a forked child, of what belongs to the parent."""
        self.spool.abandon()
