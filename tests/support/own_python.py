"""A virtual environment that one test has to itself and may break, with the SDK as the wheel laid it out."""

from __future__ import annotations

import ensurepip
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import agent_assembly
from support.gateway import clean_environment
from support.interpreters import PACKAGES
from support.wheels import wheel

Rows = dict[str, dict[str, str]]

# As the command line does it, the directories that are meant for programs come off the path first.
_SCRIPT = """
import os, sys
sys.path[:] = [e for e in sys.path if e and e not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
import json
from aasm_py.doctor import adapters, runtime, start_up, target
from aasm_py.doctor.examination import as_json
from aasm_py.doctor.look import Look
from aasm_py.doctor.runner import run_checks
checks = (*runtime.CHECKS, *start_up.CHECKS, *adapters.CHECKS, *target.CHECKS)
wanted = sys.argv[1].split(",") if sys.argv[1] else [check.name for check in checks]
look = Look(os.environ, sys.argv[2:], seconds=20.0)
print(json.dumps(as_json(run_checks(look, [check for check in checks if check.name in wanted]))["checks"]))
"""


class OwnPython:
    """`path` is the interpreter, `site` where its packages lie, `home` the SDK's directory, `variables` its shell's."""

    def __init__(self, directory: Path) -> None:
        made = directory / "environment"
        base = Path(sys.executable).resolve()
        subprocess.run([base, "-m", "venv", "--without-pip", made], env=clean_environment(), check=True, timeout=120)
        self.directory = directory
        self.path = made / "bin" / "python"
        (self.site,) = made.glob("lib/python3*/site-packages")
        source = Path(agent_assembly.__file__).parent.parent
        for package in (*PACKAGES, f"agent_assembly-{agent_assembly.__version__}.dist-info"):
            shutil.copytree(source / package, self.site / package)
        for entry in _needed_by("agent-assembly", set()):
            (self.site / entry.name).symlink_to(entry)
        self.home = directory / "home"
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.variables = clean_environment(AASM_HOME=str(self.home), PATH=f"{made / 'bin'}:/usr/bin:/bin")
        for name in ("PYTHONPATH", "PYTHONPYCACHEPREFIX"):
            self.variables.pop(name, None)

    def rows(
        self,
        *command: str | Path,
        only: Sequence[str] = (),
        variables: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 60.0,
    ) -> Rows:
        """What the doctor of this Python finds, by check; of the checks of runtime, adapters and target alone."""
        result = subprocess.run(
            [self.path, "-c", _SCRIPT, ",".join(only), *map(str, command)],
            env=variables or self.variables,
            cwd=cwd or self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        found: list[dict[str, Any]] = json.loads(result.stdout)
        return {row["check"]: row for row in found}

    def add_pip(self) -> None:
        """Give it the pip that Python brings along, as an environment that was made with pip has it."""
        bundled = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
        with zipfile.ZipFile(bundled) as archive:
            archive.extractall(self.site)

    def sdk_wheel(self, directory: Path) -> None:
        """Write the SDK that is tested into `directory`, as a wheel without its dependencies."""
        source = Path(agent_assembly.__file__).parent.parent
        files = [file for package in PACKAGES for file in (source / package).rglob("*.py")]
        contents = {str(file.relative_to(source)): file.read_text() for file in files}
        wheel(directory, "agent-assembly", agent_assembly.__version__, contents)

    def module(self, name: str, text: str = "", *, site: Path | None = None) -> Path:
        """Write a module (dots make packages) into the environment, or below `site`; return its file."""
        *parents, last = name.split(".")
        where = site or self.site
        for parent in parents:
            where /= parent
            where.mkdir(parents=True, exist_ok=True)
            (where / "__init__.py").touch()
        where.mkdir(parents=True, exist_ok=True)
        file = where / f"{last}.py"
        file.write_text(text)
        return file


def _needed_by(name: str, seen: set[str]) -> Iterator[Path]:
    """What lies in site-packages of the distributions that `name` depends on, extras left out."""
    for requirement in metadata.requires(name) or ():
        needed = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        needed = re.sub(r"[-_.]+", "-", needed).lower()
        if needed in seen or "extra ==" in requirement:
            continue
        seen.add(needed)
        try:
            distribution = metadata.distribution(needed)
        except metadata.PackageNotFoundError:
            continue  # for another platform or Python
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            yield Path(str(distribution.locate_file(top)))
        yield from _needed_by(needed, seen)
