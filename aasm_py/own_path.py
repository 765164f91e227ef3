"""Keeps the commands' imports to what was installed with them.

Imported before the user's program: see the import rules.
"""

from __future__ import annotations

import os
import sys


def leave_python_path() -> None:
    """Import nothing from the directories that are meant for the program: its `yaml.py` is not ours."""
    users = {os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry} | {""}
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[:] = [entry for entry in sys.path if entry not in users or entry == here]
