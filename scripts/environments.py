"""Cached Python environments: the build's tools, and one for each other Python that the tests run on.

Standard library only: this runs on whatever `python3` a fresh machine has.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 10)
# What a developer's shell may carry and a build must not depend on.
FOREIGN = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "UV_PROJECT_ENVIRONMENT",
)


def cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-assembly"


def clean_environment() -> dict[str, str]:
    """Return the process's variables without those that would change what the build or the tests see."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN and not name.startswith("AASM_")}
    cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "bin"
    if shutil.which("cargo", path=kept.get("PATH")) is None and (cargo / "cargo").exists():
        kept["PATH"] = f"{cargo}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return kept


def run(command: Sequence[str | Path], *, cwd: Path = ROOT, quiet: bool = False) -> None:
    """Run `command`; end the whole script with its exit code when it fails. `quiet` shows its output only then."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        check=False,
    )
    if result.returncode:
        if quiet:
            sys.stdout.buffer.write(result.stdout)
        print(f"failed ({result.returncode}): {' '.join(str(word) for word in command)}", file=sys.stderr, flush=True)
        raise SystemExit(result.returncode if result.returncode > 0 else 128 - result.returncode)


def fingerprint(parts: Iterable[str | bytes | Path]) -> str:
    """Return a short digest over texts and the contents of files (a file that is missing counts as empty)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            data = part.read_bytes() if part.is_file() else b""
        else:
            data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """Return the environment `name`, built by `build(directory)` unless an earlier run completed it.

    Two builds at once wait for each other; one that was interrupted is begun anew.
    """
    directory = cache_directory() / name
    complete = directory / ".complete"
    if complete.exists():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.parent / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(directory, ignore_errors=True)
            build(directory)
            complete.touch()
    return directory


def tools() -> Path:
    """Return the `bin` directory that holds uv, maturin, hatchling, ruff and mypy."""
    requirements = ROOT / "scripts" / "tools.txt"
    key = fingerprint([requirements, sys.version, platform.machine()])

    def build(directory: Path) -> None:
        print(f"installing the build's tools into {directory}", flush=True)
        # Some systems ship Python without ensurepip; their pip can fill an environment from outside.
        bundled = importlib.util.find_spec("ensurepip") is not None
        run([sys.executable, "-m", "venv", *([] if bundled else ["--without-pip"]), directory])
        python = directory / "bin" / "python"
        if bundled:
            installer: list[str | Path] = [python, "-m", "pip"]
        elif importlib.util.find_spec("pip") is not None:
            installer = [sys.executable, "-m", "pip", "--python", python]
        else:
            raise SystemExit(f"{sys.executable} has neither ensurepip nor pip; install python3-venv or python3-pip")
        run([*installer, "install", "--quiet", "--disable-pip-version-check", "-r", requirements])

    return cached(f"tools-{key}", build) / "bin"


def require_python() -> None:
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        raise SystemExit(f"python3 is {found}; Agent Assembly needs 3.10 or later: make PYTHON=/path/to/python3.12 …")


def other_pythons() -> list[tuple[str, Path]]:
    """Return `(version, program)` of every CPython 3.10 to 3.14 on this machine but the running one, oldest first.

    Looks on PATH and in pyenv's directory; asks each program itself, since names lie (shims, links, PyPy).
    """
    candidates: list[Path] = []
    for minor in range(10, 15):
        for directory in os.environ.get("PATH", "").split(os.pathsep):
            program = Path(directory) / f"python3.{minor}"
            if directory and "shims" not in Path(directory).parts and os.access(program, os.X_OK):
                candidates.append(program)
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates += sorted(versions.glob("3.1[0-4].*/bin/python"))
    asked = "import platform, sys; print(platform.python_implementation(), *sys.version_info[:4])"
    found: dict[tuple[int, int], Path] = {}
    for program in candidates:
        answer = subprocess.run(
            [program, "-I", "-c", asked], capture_output=True, text=True, env=clean_environment(), check=False
        ).stdout.split()
        if len(answer) == 5 and answer[0] == "CPython" and answer[4] == "final":
            version = (int(answer[1]), int(answer[2]))
            if (3, 10) <= version <= (3, 14) and version != sys.version_info[:2]:
                found.setdefault(version, program)
    return [(f"{major}.{minor}", program) for (major, minor), program in sorted(found.items())]
