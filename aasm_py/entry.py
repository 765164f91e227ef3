"""Where `aasm-py` begins: before anything is imported that a directory of the user's could stand in for."""

from __future__ import annotations

from aasm_py.own_path import leave_python_path


def main() -> None:
    """Run `aasm-py`."""
    leave_python_path()
    from aasm_py.main import main

    main()
