"""Arms the adapters of this Python without any gateway, and says of each how far it came: what the doctor asks for.

Run in a process of its own, which imports the frameworks and nothing of anybody's program.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from agent_assembly._version import __version__
from agent_assembly.adapters.base import FrameworkAdapter
from agent_assembly.adapters.registry import AdapterRegistry, NamedEntryPoint, installed_entry_points
from agent_assembly.adapters.table import ADAPTERS, AdapterRow
from agent_assembly.adapters.versions import admitted, installed_version
from agent_assembly.exceptions import AssemblyError
from agent_assembly.governance import GovernanceInterceptor, Outcome, ToolCall, Verdict

_INITIALIZATION = "initialization"
_TEXT_LIMIT = 500

_Report = dict[str, Any]


class _DenyAll(GovernanceInterceptor):
    """Denies every call, and asks and tells nobody."""

    def __init__(self) -> None:
        self.on_deny = "raise"
        self.enforcement_mode = "enforce"

    def before_tool(self, call: ToolCall) -> Verdict:  # noqa: ARG002 - whatever it is
        return Verdict("deny", "nothing is run in a dry run", "default", True, decided_by="agent", evaluated=False)

    async def before_tool_async(self, call: ToolCall) -> Verdict:
        return self.before_tool(call)

    def after_tool(self, call: ToolCall, outcome: Outcome) -> Any:  # noqa: ARG002 - whatever it was
        return outcome.result


def main(descriptor: int, done: Sequence[str] = ()) -> None:
    """Write lines of JSON to `descriptor`: first what there is to look at, then a report on each but those `done`."""

    def tell(report: _Report) -> None:
        os.write(descriptor, json.dumps(report).encode() + b"\n")

    present = {
        adapter.get_framework_name(): adapter for adapter in AdapterRegistry(list).get_available_adapters_by_priority()
    }
    units = {name: look for name, look in _units(present) if name not in done}
    tell({"sdk": __version__, "units": list(units), "frameworks": [_presence(row, present) for row in ADAPTERS]})
    for name, look in units.items():
        tell({"unit": name, **look()})


def _units(present: Mapping[str, FrameworkAdapter]) -> Iterator[tuple[str, Callable[[], _Report]]]:
    for row in ADAPTERS:
        if row.key in present:
            yield row.key, partial(_built_in, row, present[row.key])
    for entry_point in installed_entry_points():
        owner = getattr(entry_point, "dist", None)
        offered = f"{owner.name} {owner.version}" if owner is not None else "an unknown distribution"
        yield f"{entry_point.name} ({offered})", partial(_third_party, entry_point, offered)
    # Last: by then the frameworks are there, as in a program that imports them before init_assembly().
    yield _INITIALIZATION, partial(_initialization, present)


def _presence(row: AdapterRow, present: Collection[str]) -> _Report:
    return {
        "key": row.key,
        "distribution": row.distribution,
        "supported": list(row.versions),
        "trigger": row.triggers[0],
        "present": row.key in present,
    }


def _built_in(row: AdapterRow, adapter: FrameworkAdapter) -> _Report:
    version = installed_version(row.distribution)
    report: _Report = {
        "key": row.key,
        "distribution": row.distribution,
        "version": version,
        "supported": list(row.versions),
        "in_range": None if version is None else admitted(version, row.versions),
        "error": None,
    }
    try:
        adapter.register_hooks(_DenyAll())
        for trigger in row.triggers:
            import_module(trigger)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a framework raises is what is to be reported
        # The hook that fails lets the import fail: whose error it is, the adapter knows.
        report.update(error=_text(error), importing=not str(getattr(adapter, "state", "")).startswith("failed"))
        report["hiding"] = _hiding(error, row.package)
    report["state"] = getattr(adapter, "state", "armed")
    _unregister(adapter)
    return report


def _third_party(entry_point: NamedEntryPoint, offered: str) -> _Report:
    report: _Report = {"key": entry_point.name, "offered_by": offered, "error": None, "importing": False}
    try:
        taken = {row.key for row in ADAPTERS}
        adapters = AdapterRegistry(lambda: [entry_point]).get_available_adapters_by_priority()
        adapter = next((each for each in adapters if each.get_framework_name() not in taken), None)
        if adapter is None:
            return {**report, "state": "absent"}
        version = installed_version(adapter.distribution)
        supported = list(adapter.get_supported_versions())
        report.update(
            key=adapter.get_framework_name(),
            distribution=adapter.distribution,
            version=version,
            supported=supported,
            in_range=None if version is None else admitted(version, supported),
        )
        adapter.register_hooks(_DenyAll())
        _unregister(adapter)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's code
        return {**report, "state": "failed", "error": _text(error)}
    return {**report, "state": "armed"}


def _initialization(present: Collection[str]) -> _Report:
    for row in ADAPTERS:
        try:
            if row.key in present:
                for trigger in row.triggers:
                    import_module(trigger)
        except (Exception, SystemExit):  # noqa: BLE001, S110 - the framework's own report says it
            pass
    registry = AdapterRegistry()
    try:
        registry.arm(_DenyAll())
    except AssemblyError as error:
        return {"error": str(error)[:_TEXT_LIMIT], "kind": type(error).__name__}
    finally:
        registry.unregister_hooks()
    return {"error": None}


def _hiding(error: BaseException, package: str) -> list[str]:
    """The entries of `sys.path` from which something came that has to do with `error` and that others offer too."""
    files = [
        path for name in (package, (getattr(error, "name", None) or "").partition(".")[0]) for path in _paths(name)
    ]
    # The module from which a name could not be imported, and the one that has no such attribute.
    origins = (getattr(error, "path", None), getattr(getattr(error, "obj", None), "__file__", None))
    files += [file for file in origins if isinstance(file, str)]
    trace = error.__traceback__
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    found: dict[str, None] = {}
    for file in files:
        for entry in sys.path:
            if file.startswith(os.path.join(entry, "")):
                top = file[len(os.path.join(entry, "")) :].partition(os.sep)[0].removesuffix(".py")
                if any(_offers(other, top) for other in sys.path if other != entry):
                    found[entry] = None
                break
    return list(found)


def _paths(name: str) -> list[str]:
    module = sys.modules.get(name)
    return [str(path) for path in getattr(module, "__path__", ())]


def _offers(entry: str, top: str) -> bool:
    return os.path.isfile(os.path.join(entry, f"{top}.py")) or os.path.isfile(os.path.join(entry, top, "__init__.py"))


def _unregister(adapter: FrameworkAdapter) -> None:
    try:
        adapter.unregister_hooks()
    except Exception as error:  # noqa: BLE001 - the process ends in a moment
        sys.stderr.write(f"{adapter.get_framework_name()} cannot be unregistered: {_text(error)}\n")


def _text(error: BaseException) -> str:
    said = str(error)[:_TEXT_LIMIT]
    return said if isinstance(error, AssemblyError) else f"{type(error).__name__}: {said}"
