"""Keeps the commands' imports to what was installed with them.

Imported before the user's program: see the import rules.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def leave_python_path() -> None:
    """Import nothing from the directories that are meant for the program: its `yaml.py` is not ours.

    What this Python looks through by itself stays, also where PYTHONPATH names it, too.
    """
    named = os.environ.get("PYTHONPATH")
    # An empty entry is the current directory, which `site` writes out.
    users = {"", *map(_absolute, named.split(os.pathsep))} if named else {""}
    users.difference_update(_own_directories())
    sys.path[:] = [entry for entry in sys.path if entry not in users]


def _absolute(entry: str) -> str:
    try:
        return os.path.abspath(entry)
    except OSError:
        # The current directory is gone; `site` leaves the entry as it is.
        return entry


def _own_directories() -> Iterator[str]:
    """Where this Python finds its library and what is installed, whatever PYTHONPATH says."""
    yield os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    library = os.path.dirname(os.__file__)
    yield library
    yield os.path.join(library, "lib-dynload")
    site: Any = sys.modules.get("site")
    if site is not None:
        yield from site.getsitepackages()
        if site.ENABLE_USER_SITE and site.USER_SITE:
            yield site.USER_SITE
