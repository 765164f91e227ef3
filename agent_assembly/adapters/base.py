"""What an adapter is: the interface that built-in and third-party adapters share."""

from __future__ import annotations

import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence

from agent_assembly.governance import GovernanceInterceptor


class FrameworkAdapter(ABC):
    """Leads the tool calls of one framework through a `GovernanceInterceptor`.

    A third-party adapter is a subclass that can be made without arguments, named by an entry point of the group
    `agent_assembly.adapters`. `package` is the framework's top-level import name where that is not its key,
    `distribution` the installed project whose version is compared with the supported ones.
    """

    package: str | None = None
    distribution: str | None = None

    @abstractmethod
    def get_framework_name(self) -> str:
        """Return the framework's key, the same word that verdicts and records use."""

    @abstractmethod
    def get_supported_versions(self) -> Sequence[str]:
        """Return version specifiers such as `>=0.3,<2`; a version is supported when one of them admits it."""

    @abstractmethod
    def register_hooks(self, interceptor: GovernanceInterceptor) -> None:
        """Govern the framework from now on, or from its import on. Imports nothing of the framework.

        Raises where that is impossible, having changed nothing.
        """

    @abstractmethod
    def unregister_hooks(self) -> None:
        """Leave every attribute of the framework as it was. Does nothing when no hooks are registered."""

    def is_available(self) -> bool:
        """Whether the framework could be imported in this process; imports nothing."""
        package = (self.package or self.get_framework_name()).partition(".")[0]
        if package in sys.modules:
            return sys.modules[package] is not None
        try:
            return importlib.util.find_spec(package) is not None
        except (ImportError, ValueError):
            return False
