"""The row about other programs that put a sitecustomize of theirs, or themselves, into every Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from aasm_py.doctor.look import Look
from aasm_py.doctor.search_path import python_path, without
from agent_assembly.diagnosis import Finding

CHECK = "other launchers"


class Launcher(NamedTuple):
    """One of them: where its sitecustomize lies, and whether that runs the one that it stands before."""

    name: str
    directory: str
    chains: bool


LAUNCHERS = (
    Launcher("opentelemetry-instrument", "opentelemetry/instrumentation/auto_instrumentation", chains=False),
    Launcher("ddtrace-run", "ddtrace/bootstrap", chains=True),
    Launcher("newrelic-admin", "newrelic/bootstrap", chains=True),
    Launcher("PyCharm", "pycharm_matplotlib_backend", chains=True),
    Launcher("PyCharm", "pycharm_display", chains=True),
)
# Of those that need no sitecustomize: what shows that they are at work, and how they come into a program.
_BESIDE = (
    ("coverage", ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"), "comes by a path file"),
    ("debugpy", ("DEBUGPY_RUNNING", "DEBUGPY_LAUNCHER_PORT"), "starts child processes through itself"),
)


def other_launchers(look: Look) -> Finding:
    """Name those in the environment, and the ones that let nobody run after them."""
    entries = python_path(look.environ)
    present = [(entry, launcher) for entry in entries if (launcher := launcher_of(entry)) is not None]
    alone = [(entry, launcher) for entry, launcher in present if not launcher.chains]
    if alone:
        entry, launcher = alone[0]
        said = (
            f"{launcher.name} (PYTHONPATH holds {entry}) runs no sitecustomize after its own, and puts itself first "
            "for child processes: these are not governed"
        )
        return Finding(CHECK, "warn", said, without(entries, [entry for entry, _ in alone]))
    named = [f"{launcher.name} (PYTHONPATH): runs the next sitecustomize" for _, launcher in present]
    named += [
        f"{name} ({variable}): {how}, and does not get in the way"
        for name, variables, how in _BESIDE
        for variable in _set(look, variables)[:1]
    ]
    return Finding(CHECK, "ok", "; ".join(dict.fromkeys(named)) or "none")


def launcher_of(entry: str) -> Launcher | None:
    """The launcher whose directory an entry of PYTHONPATH is."""
    plain = entry.rstrip("/").replace(os.sep, "/")
    return next((each for each in LAUNCHERS if plain == each.directory or plain.endswith("/" + each.directory)), None)


def _set(look: Look, variables: Sequence[str]) -> list[str]:
    return [name for name in variables if look.environ.get(name)]
