"""Other Pythons of this machine, and small environments for them that hold the SDK or lack it.

Made without the network: the SDK's pure-Python packages are copied from the environment that the tests run in, as the
wheel laid them out there.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import agent_assembly
from support.gateway import clean_environment

PACKAGES = ("agent_assembly", "aasm_py")
UNUSED_SECONDS = 24 * 3600
SUPPORTED = ((3, 10), (3, 11), (3, 12), (3, 13), (3, 14))


def cache_directory() -> Path:
    """Where environments are kept between runs, outside the checkout."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "agent-assembly"


@functools.cache
def installed() -> dict[tuple[int, int], Path]:
    """The Pythons of this machine by version, one of each: pyenv's own, then those on PATH."""
    found: dict[tuple[int, int], Path] = {}
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv"))
    candidates = sorted(pyenv.glob("versions/*/bin/python"))
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        if directory and "shims" not in Path(directory).parts:
            candidates += [Path(directory) / f"python{major}.{minor}" for major, minor in ((2, 7), *SUPPORTED)]
    for candidate in candidates:
        version = _version(candidate)
        if version is not None:
            found.setdefault(version, candidate)
    return found


def other_supported() -> dict[tuple[int, int], Path]:
    """The supported Pythons that are not the one that the tests run on."""
    return {key: path for key, path in installed().items() if key in SUPPORTED and key != sys.version_info[:2]}


def too_old() -> dict[tuple[int, int], Path]:
    """The Pythons that the SDK does not support any more."""
    return {key: path for key, path in installed().items() if key < SUPPORTED[0]}


def _version(path: Path) -> tuple[int, int] | None:
    if not os.access(path, os.X_OK):
        return None
    code = "import sys; sys.stdout.write('%d %d' % sys.version_info[:2])"
    try:
        result = subprocess.run([path, "-c", code], capture_output=True, text=True, timeout=20, check=False)
        major, minor = map(int, result.stdout.split())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return major, minor


def environment(version: tuple[int, int], *, with_sdk: bool) -> Path:
    """Return the Python of a virtual environment of that version, which holds the SDK or nothing at all."""
    base = Path(sys.executable).resolve() if version == sys.version_info[:2] else installed()[version]
    source = Path(agent_assembly.__file__).parent.parent
    key = hashlib.sha256(f"{base} {with_sdk} {_fingerprint(source) if with_sdk else ''}".encode()).hexdigest()[:16]
    directory = cache_directory() / f"process-{version[0]}.{version[1]}-{key}"
    python = directory / "bin" / "python"
    if python.exists():
        directory.touch()
    else:
        _forget_unused(f"process-{version[0]}.{version[1]}-*")
        cache_directory().mkdir(parents=True, exist_ok=True)
        # Made aside and moved into place: tests of several Pythons may want it at the same moment.
        with tempfile.TemporaryDirectory(dir=cache_directory()) as aside:
            made = Path(aside) / "environment"
            subprocess.run(
                [base, "-m", "venv", "--without-pip", made], env=clean_environment(), check=True, timeout=120
            )
            if with_sdk:
                (site,) = made.glob("lib/python3*/site-packages")
                for package in PACKAGES:
                    shutil.copytree(source / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
            try:
                made.rename(directory)
            except OSError:
                assert python.exists(), f"{directory} was not made"
    return python


def _forget_unused(pattern: str) -> None:
    """Remove the environments of older wheels."""
    for directory in cache_directory().glob(pattern):
        if time.time() - directory.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(directory, ignore_errors=True)


def _fingerprint(source: Path) -> str:
    digest = hashlib.sha256()
    for package in PACKAGES:
        for file in sorted((source / package).rglob("*.py")):
            digest.update(str(file.relative_to(source)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
