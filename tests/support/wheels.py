"""Small wheels of our own making, so that a remedy that says `pip install` can be typed without any network."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# What the build made, the tested distribution among them.
BUILT = ROOT / "dist"


def wheel(
    directory: Path,
    name: str,
    version: str,
    files: Mapping[str, str] | None = None,
    *,
    entry_points: str = "",
    requires: Sequence[str] = (),
) -> Path:
    """Write a wheel of pure Python into `directory`; return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    facts = f"{stem}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents = {
        **(files or {}),
        f"{facts}/METADATA": metadata + "".join(f"Requires-Dist: {requirement}\n" for requirement in requires),
        f"{facts}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **({f"{facts}/entry_points.txt": entry_points} if entry_points else {}),
    }
    path = directory / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in contents.items():
            archive.writestr(file, text)
        archive.writestr(f"{facts}/RECORD", "".join(f"{file},,\n" for file in (*contents, f"{facts}/RECORD")))
    return path


def unpack(path: Path, site: Path) -> None:
    """Install a wheel as pip would lay it out."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(site)
    (facts,) = site.glob(f"{'-'.join(path.name.split('-')[:2])}.dist-info")
    (facts / "INSTALLER").write_text("pip\n")


def offline(*directories: Path) -> dict[str, str]:
    """The variables with which pip finds the wheels in `directories`, and nothing else."""
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": " ".join(str(directory) for directory in directories),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_COMPILE": "1",
    }
