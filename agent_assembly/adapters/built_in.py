"""What the built-in adapters share: waiting for a framework's modules, and saying how far that has come."""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from types import ModuleType
from typing import ClassVar

from agent_assembly.adapters import hooks
from agent_assembly.adapters.base import FrameworkAdapter
from agent_assembly.adapters.table import row_of
from agent_assembly.adapters.versions import admitted, installed_version
from agent_assembly.governance import GovernanceInterceptor

_logger = logging.getLogger("agent_assembly")


class BuiltInAdapter(FrameworkAdapter):
    """An adapter that its row describes. Subclasses say what to do when a trigger module has run, and how to undo it.

    `state` is "off", "waiting" until the framework is imported, "armed", or "failed: …" with the reason.
    """

    key: ClassVar[str]

    def __init__(self) -> None:
        self.row = row_of(self.key)
        self.package = self.row.package
        self.distribution = self.row.distribution
        self.state = "off"
        self._interceptor: GovernanceInterceptor | None = None
        self._armed: set[str] = set()
        self._lock = threading.RLock()

    def get_framework_name(self) -> str:
        return self.key

    def get_supported_versions(self) -> tuple[str, ...]:
        return self.row.versions

    def register_hooks(self, interceptor: GovernanceInterceptor) -> None:
        with self._lock:
            self.unregister_hooks()
            self.state = "waiting"
            self._interceptor = interceptor
            self.prepare(interceptor)
            try:
                for trigger in self.row.triggers:
                    hooks.watch(trigger, self._imported)
            except BaseException as error:
                self.unregister_hooks()
                self.state = f"failed: {error}"
                raise

    def unregister_hooks(self) -> None:
        with self._lock:
            if self._interceptor is None:
                return
            for trigger in self.row.triggers:
                hooks.unwatch(trigger, self._imported)
            self._armed.clear()
            self._interceptor = None
            self.state = "off"
            kept = self.disarm()
        for place in kept:
            _logger.warning("%s was patched by someone else and stays so; governance of it is off", place)

    def _imported(self, module: ModuleType) -> None:
        with self._lock:
            if self._interceptor is None:
                return
            self._compare_version()
            try:
                self.arm(module)
            except Exception as error:
                self.state = f"failed: {error}"
                if self._interceptor.enforcement_mode in ("observe", "disabled"):
                    _logger.warning("the tool calls of %s are not governed: %s", self.key, error)
                    return
                raise
            self._armed.add(module.__name__)
            if self._armed.issuperset(self.row.triggers) and not self.state.startswith("failed"):
                self.state = "armed"

    def _compare_version(self) -> None:
        version = installed_version(self.row.distribution)
        if version is not None and not admitted(version, self.row.versions):
            _logger.warning(
                "%s %s is outside the versions that its adapter was made for (%s); its tool calls are governed as far "
                "as its choke points are where they were",
                self.row.distribution,
                version,
                " or ".join(self.row.versions),
            )

    @abstractmethod
    def prepare(self, interceptor: GovernanceInterceptor) -> None:
        """Get ready to arm; the framework is not there yet."""

    @abstractmethod
    def arm(self, module: ModuleType) -> None:
        """Govern what the trigger `module` defines; again after a reload. Raises when its choke points are missing."""

    @abstractmethod
    def disarm(self) -> list[str]:
        """Undo `prepare` and every `arm`; return the places that someone else has patched over."""
