"""Support bundles, opened, and the log that one holds the end of."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

DIRECTORY = "aasm-report"


def members_of(path: Path) -> dict[str, str]:
    """The bundle's files by name, below its one directory."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            found = {name: archive.read(name) for name in archive.namelist()}
    else:
        with tarfile.open(path) as archive:
            files = {member.name: archive.extractfile(member) for member in archive.getmembers()}
            found = {name: file.read() for name, file in files.items() if file is not None}
    assert all(name.startswith(f"{DIRECTORY}/") for name in found)
    return {name.removeprefix(f"{DIRECTORY}/"): data.decode() for name, data in found.items()}


def log_of(home: Path) -> Path:
    """The path of the gateway's log, in a directory that is there."""
    path = home / "log" / "gateway.log"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return path
