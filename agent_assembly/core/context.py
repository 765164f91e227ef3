"""What governs this process, told truthfully."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

from agent_assembly.core.governor import Governor
from agent_assembly.core.instance import AgentInstance
from agent_assembly.core.settings import Settings
from agent_assembly.exceptions import AgentError


class AdapterState(NamedTuple):
    """An adapter of this process: `state` is "armed", "waiting" (its framework is not imported yet) or "failed: …"."""

    name: str
    framework_version: str | None
    state: str


class AssemblyContext:
    """Governance as it is active in this process; a context manager that ends it on exit.

    Attributes say what is, not what was asked for: `mode` is the layer that runs, `enforcement_mode` the posture that
    the gateway confirmed, `registered` whether it knows this instance, `degraded` why something is less than it could
    be.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        mode: str,
        mode_note: str | None,
        gateway_url: str | None,
        gateway_source: str,
        governor: Governor,
        instance: AgentInstance,
        adapter_states: Callable[[], list[AdapterState]],
        problems: list[str],
        end: Callable[[AssemblyContext], None],
    ) -> None:
        self.settings = settings
        self.mode = mode
        self.requested_mode: str = settings.mode
        self.mode_note = mode_note
        self.gateway_url = gateway_url
        self.gateway_source = gateway_source
        self.on_deny: str = settings.on_deny
        self._governor = governor
        self._instance = instance
        self._adapter_states = adapter_states
        self._problems = problems
        self._end = end
        self._entered = 0
        self.active = True

    @property
    def instance(self) -> AgentInstance:
        """The registration and record keeper behind this context, in this process."""
        # A forked child goes on as a new instance of the same agent.
        self._governor.refresh()
        return self._governor.successor(self._instance)

    @property
    def agent_id(self) -> str:
        return str(self.settings.agent_id)

    @property
    def team_id(self) -> str | None:
        team: str | None = self.settings.team_id
        return team

    @property
    def run_id(self) -> str | None:
        run: str | None = self.settings.run_id
        return run

    @property
    def instance_id(self) -> str:
        return self.instance.instance_id

    @property
    def registered(self) -> bool:
        return self.active and self.instance.registration is not None

    @property
    def enforcement_mode(self) -> str:
        return self.instance.enforcement_mode

    @property
    def gateway_version(self) -> str | None:
        registration = self.instance.registration
        return registration.gateway_version if registration else None

    @property
    def policy_revision(self) -> str | None:
        registration = self.instance.registration
        return registration.policy_revision if registration else None

    @property
    def policy_source(self) -> str | None:
        registration = self.instance.registration
        return registration.policy_source if registration else None

    @property
    def policies(self) -> tuple[str, ...]:
        registration = self.instance.registration
        return registration.policies if registration else ()

    @property
    def adapters(self) -> tuple[AdapterState, ...]:
        return tuple(self._adapter_states())

    @property
    def degraded(self) -> tuple[str, ...]:
        """Why governance is less than it could be, one sentence each; empty when all is well."""
        instance = self.instance
        reasons = list(self._problems)
        if not self.active:
            reasons.append("governance was shut down")
        elif instance.registration is None:
            cause = f": {instance.last_error}" if instance.last_error else ""
            reasons.append(f"not registered with the gateway{cause}")
        if instance.shipper.problem:
            reasons.append(f"records wait in the spool: {instance.shipper.problem}")
        if instance.lost:
            reasons.append(f"{instance.lost} records could not be kept")
        reasons += [f"adapter {name}: {state}" for name, _, state in self.adapters if state.startswith("failed")]
        return tuple(reasons)

    def shutdown(self) -> None:
        """End governance: hooks off in reverse order, records sent, registry left. Idempotent.

        Under `aasm-run` it ends what the program added; the launcher's own context cannot be ended.
        Raises AssemblyError with everything that went wrong, after all of it was tried.
        """
        self._end(self)

    def __enter__(self) -> AssemblyContext:
        if not self.active:
            raise AgentError("governance was shut down; call init_assembly() again")
        self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The same context may be entered again further in: only the outermost block ends it.
        self._entered -= 1
        if self._entered <= 0:
            self.shutdown()

    def __repr__(self) -> str:
        return (
            f"AssemblyContext(agent_id={self.agent_id!r}, mode={self.mode!r}, "
            f"enforcement_mode={self.enforcement_mode!r}, registered={self.registered})"
        )
