"""Which adapters there are, in which order they are armed, and how far each has come."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, NamedTuple, Protocol, cast

from agent_assembly.adapters.base import FrameworkAdapter
from agent_assembly.adapters.table import ADAPTERS, ENTRY_POINT_GROUP, PRIORITIES, THIRD_PARTY_PRIORITY
from agent_assembly.adapters.versions import admitted, check_specifier, installed_version
from agent_assembly.exceptions import AdapterValidationError, AssemblyError
from agent_assembly.governance import GovernanceInterceptor


class NamedEntryPoint(Protocol):
    """As much of `importlib.metadata.EntryPoint` as is used here."""

    @property
    def name(self) -> str: ...

    def load(self) -> Any: ...


class AdapterReport(NamedTuple):
    """How one adapter stands: `state` is "off", "waiting" (for the framework's import), "armed" or "failed: …".

    `framework_version` and `in_range` are None where the version is not known.
    """

    key: str
    priority: int
    framework_version: str | None
    supported: tuple[str, ...]
    in_range: bool | None
    state: str


def installed_entry_points() -> Iterable[NamedEntryPoint]:
    """Return the entry points of all installed third-party adapters."""
    from importlib import metadata

    return metadata.entry_points(group=ENTRY_POINT_GROUP)


class AdapterRegistry:
    """The adapters of this process: the built-in ones and those that other distributions offer."""

    def __init__(self, entry_points: Callable[[], Iterable[NamedEntryPoint]] = installed_entry_points) -> None:
        self._entry_points = entry_points
        self._available: list[FrameworkAdapter] | None = None
        self._states: dict[str, str] = {}
        self._registered: list[FrameworkAdapter] = []

    def get_available_adapters_by_priority(self) -> list[FrameworkAdapter]:
        """Return the adapters whose framework can be imported, in the order in which they are armed.

        Imports no framework. Raises AdapterValidationError for a third-party adapter that cannot be used.
        """
        if self._available is None:
            adapters = [_built_in(row.adapter) for row in ADAPTERS]
            taken = {adapter.get_framework_name(): "a built-in adapter" for adapter in adapters}
            for entry_point in self._entry_points():
                adapter = _third_party(entry_point)
                key = adapter.get_framework_name()
                if key in taken:
                    raise _unusable(entry_point.name, f"claims the framework {key!r}, which has {taken[key]} already")
                taken[key] = f"the adapter of entry point {entry_point.name!r}"
                adapters.append(adapter)
            self._available = sorted((each for each in adapters if each.is_available()), key=priority_of)
        return list(self._available)

    def register_hooks(self, interceptor: GovernanceInterceptor) -> None:
        """Register the hooks of all available adapters, in order; when one fails, undo those before it and raise."""
        for adapter in self.get_available_adapters_by_priority():
            key = adapter.get_framework_name()
            try:
                adapter.register_hooks(interceptor)
            except BaseException as error:
                self.unregister_hooks()
                self._states[key] = f"failed: {error}"
                raise
            self._registered.append(adapter)
            self._states[key] = "armed"

    def arm(self, interceptor: GovernanceInterceptor) -> None:
        """Do the same for the runtime, whose callers are told of nothing but AssemblyError."""
        try:
            self.register_hooks(interceptor)
        except AssemblyError:
            raise
        except Exception as error:
            raise AssemblyError(f"Failed to initialize assembly runtime: {error}") from error

    def unregister_hooks(self) -> list[Exception]:
        """Unregister what was registered, last first; return the errors of adapters that could not."""
        errors: list[Exception] = []
        while self._registered:
            adapter = self._registered.pop()
            self._states[adapter.get_framework_name()] = "off"
            try:
                adapter.unregister_hooks()
            except Exception as error:  # noqa: BLE001 - all are tried; the errors are returned together
                errors.append(error)
        return errors

    def report(self) -> list[AdapterReport]:
        """Return how each available adapter stands, in order."""
        return [self._report(adapter) for adapter in self.get_available_adapters_by_priority()]

    def _report(self, adapter: FrameworkAdapter) -> AdapterReport:
        key = adapter.get_framework_name()
        supported = tuple(adapter.get_supported_versions())
        version = installed_version(adapter.distribution)
        # Built-in adapters know whether they wait; of others it is known that they were registered.
        state = str(getattr(adapter, "state", self._states.get(key, "off")))
        in_range = None if version is None else admitted(version, supported)
        return AdapterReport(key, priority_of(adapter), version, supported, in_range, state)


def priority_of(adapter: FrameworkAdapter) -> int:
    """Return the documented rank of an adapter's framework, 50 where none is documented."""
    return PRIORITIES.get(adapter.get_framework_name(), THIRD_PARTY_PRIORITY)


def _built_in(path: str) -> FrameworkAdapter:
    module, _, name = path.partition(":")
    return cast("FrameworkAdapter", getattr(import_module(module), name)())


def _third_party(entry_point: NamedEntryPoint) -> FrameworkAdapter:
    try:
        offered = entry_point.load()
    except Exception as error:
        raise _unusable(entry_point.name, f"cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(offered, type) and issubclass(offered, FrameworkAdapter)):
        raise _unusable(entry_point.name, f"names {offered!r}, which is not a subclass of FrameworkAdapter")
    if inspect.isabstract(offered):
        missing = ", ".join(sorted(offered.__abstractmethods__))
        raise _unusable(entry_point.name, f"lacks the methods {missing}")
    try:
        adapter = offered()
        # The annotations are a promise of someone else's; here it is checked.
        name: Any = adapter.get_framework_name()
        versions: Any = adapter.get_supported_versions()
        if not (isinstance(name, str) and name):
            raise TypeError(f"get_framework_name() returned {name!r} instead of a name")
        if isinstance(versions, str) or not all(isinstance(specifier, str) for specifier in versions):
            raise TypeError(f"get_supported_versions() returned {versions!r} instead of a sequence of specifiers")
        for specifier in versions:
            check_specifier(specifier)
    except Exception as error:
        raise _unusable(entry_point.name, f"breaks the contract: {error}") from error
    return adapter


def _unusable(name: str, problem: str) -> AdapterValidationError:
    return AdapterValidationError(
        f"the adapter of entry point {name!r} (group {ENTRY_POINT_GROUP}) {problem}; fix or uninstall its distribution"
    )
