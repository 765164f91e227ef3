"""The command that installs something into the environment of a Python, with what that environment has for it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from typing import NamedTuple

from aasm_py.doctor.look import Look


class Installer(NamedTuple):
    """What is known of a Python that is to get something: whether it has pip, and whether its system forbids it."""

    python: str
    pip: bool
    managed: bool = False

    def line(self, look: Look, *requirements: str, again: bool = False) -> str:
        """The command; with `again` also what is there already is replaced, and nothing else."""
        options = ["--force-reinstall", "--no-deps"] if again else []
        words = ["install", *options, *requirements]
        if self.managed:
            made = shlex.join([self.python, "-m", "venv", ".venv"])
            return f"{made} && {shlex.join(['.venv/bin/python', '-m', 'pip', *words])}"
        if not self.pip and shutil.which("uv", path=look.environ.get("PATH", os.defpath)):
            return shlex.join(["uv", "pip", "install", "--python", self.python, *options, *requirements])
        line = shlex.join([self.python, "-m", "pip", *words])
        return line if self.pip else f"{shlex.join([self.python, '-m', 'ensurepip'])} && {line}"

    def away(self, look: Look, distribution: str) -> str:
        """The command that takes a distribution out again."""
        if not self.pip and shutil.which("uv", path=look.environ.get("PATH", os.defpath)):
            return shlex.join(["uv", "pip", "uninstall", "--python", self.python, distribution])
        return shlex.join([self.python, "-m", "pip", "uninstall", "-y", distribution])


def own_installer() -> Installer:
    """That of the Python that runs the doctor."""
    return Installer(sys.executable, importlib.util.find_spec("pip") is not None)
