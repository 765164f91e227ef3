"""PYTHONPATH as it is given to the Pythons that are looked at, and as it is to be typed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping, Sequence

from aasm_py.host import Host

_TYPEABLE = 2000
_BOOTSTRAP_TAIL = os.path.join("aasm_py", "_bootstrap")


def python_path(environ: Mapping[str, str]) -> list[str]:
    """The entries of PYTHONPATH as they are, empty ones too."""
    text = environ.get("PYTHONPATH", "")
    return text.split(os.pathsep) if text else []


def is_bootstrap(entry: str) -> bool:
    """Whether an entry is the directory of our bootstrap, of whichever installation."""
    plain = entry.rstrip(os.sep)
    return plain.endswith(_BOOTSTRAP_TAIL) or plain == Host().bootstrap_directory()


def outside_a_run(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` for a Python that is to be looked at by itself: without our variables, and without our bootstrap."""
    kept = {name: value for name, value in environ.items() if not name.startswith("AASM_")}
    rest = [entry for entry in python_path(kept) if entry and not is_bootstrap(entry)]
    kept.pop("PYTHONPATH", None)
    return {**kept, "PYTHONPATH": os.pathsep.join(rest)} if rest else kept


def path_line(entries: Sequence[str]) -> str:
    """The command that makes PYTHONPATH consist of `entries`, each of them once and none of them empty."""
    kept = list(dict.fromkeys(entry for entry in entries if entry))
    if not kept:
        return "unset PYTHONPATH"
    line = f"export PYTHONPATH={shlex.quote(os.pathsep.join(kept))}"
    # Nobody types more; what is needed of so many is known to those who put them there.
    return line if len(line) <= _TYPEABLE else "unset PYTHONPATH; or: set it to the few directories that are needed"


def without(entries: Sequence[str], dropped: Collection[str]) -> str:
    """The command that takes `dropped` off PYTHONPATH."""
    return path_line([entry for entry in entries if entry not in dropped])
