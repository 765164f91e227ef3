"""`make build`: the three wheels in `dist/`, and `.venv/` made from them. Does nothing that is done already."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from environments import ROOT, clean_environment, fingerprint, require_python, run, tools

DIST = ROOT / "dist"
STAMPS = DIST / ".stamps"
VENV = ROOT / ".venv"
REQUIREMENTS = (ROOT / "tests" / "requirements.txt", ROOT / "tests" / "requirements-frameworks.txt")
REQUIREMENT_WORDS = [word for file in REQUIREMENTS for word in ("-r", str(file))]


class Wheel(NamedTuple):
    """One distribution: its name, the files it is made from, and the command that makes it."""

    distribution: str
    sources: tuple[str, ...]
    manifest: str | None

    def files(self) -> Iterator[Path]:
        for source in self.sources:
            path = ROOT / source
            found = [path] if path.is_file() else sorted(path.rglob("*"))
            for file in found:
                generated = {"__pycache__", "target"}.intersection(file.relative_to(ROOT).parts)
                if file.is_file() and not generated:
                    yield file

    def command(self, bin_directory: Path, out: Path) -> list[str | Path]:
        if self.manifest is None:
            return [bin_directory / "hatchling", "build", "-t", "wheel", "-d", out]
        maturin: list[str | Path] = [bin_directory / "maturin", "build", "--release", "--locked", "--out", out]
        return [*maturin, "--interpreter", sys.executable, "--manifest-path", ROOT / self.manifest]


_RUST = ("native/Cargo.toml", "native/Cargo.lock", "native/policy")
WHEELS = (
    Wheel(
        "agent_assembly",
        (
            *("pyproject.toml", "README.md", "LICENSE", "scripts/aasm-run", "completions"),
            *("agent_assembly", "aasm_py", "sitecustomize"),
        ),
        None,
    ),
    Wheel("agent_assembly_core", (*_RUST, "native/aa-ffi-python"), "native/aa-ffi-python/Cargo.toml"),
    Wheel("agent_assembly_gateway", (*_RUST, "native/wire", "native/gateway"), "native/gateway/Cargo.toml"),
)


def build_wheel(wheel: Wheel) -> Path:
    """Return the wheel's file in `dist/`, made anew when one of its sources changed."""
    key = fingerprint(part for file in wheel.files() for part in (str(file.relative_to(ROOT)), file))
    stamp = STAMPS / wheel.distribution
    old = sorted(DIST.glob(f"{wheel.distribution}-*.whl"))
    if len(old) == 1 and stamp.is_file() and stamp.read_text() == key:
        return old[0]
    if wheel.manifest is not None and shutil.which("cargo", path=clean_environment().get("PATH")) is None:
        raise SystemExit("cargo is not on PATH; install Rust 1.88 or later")
    print(f"building {wheel.distribution}", flush=True)
    for file in old:
        file.unlink()
    run(wheel.command(tools(), DIST), quiet=wheel.manifest is None)
    (made,) = DIST.glob(f"{wheel.distribution}-*.whl")
    stamp.write_text(key)
    return made


def uv_install(uv: Path, python: Path) -> list[str | Path]:
    """Return the beginning of a command that installs into the environment of `python`, with byte code.

    The launcher's start-up budget is met with byte code; who installs without it pays once more at each start.
    """
    return [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]


def install(wheels: list[Path]) -> None:
    """Make `.venv/` hold exactly these wheels and the pinned frameworks, with byte code."""
    base = fingerprint([sys.version, sys.executable, *REQUIREMENTS])
    ours = fingerprint(wheels)
    stamp = VENV / ".agent-assembly"
    have = stamp.read_text().split() if stamp.is_file() else []
    if have == [base, ours]:
        return
    uv = tools() / "uv"
    python = VENV / "bin" / "python"
    installing = uv_install(uv, python)
    if have[:1] != [base]:
        print(f"installing {VENV.name}/ for Python {sys.version.split()[0]}", flush=True)
        run([uv, "venv", "--quiet", "--clear", "--no-project", "--python", sys.executable, VENV])
        run([*installing, *wheels, *REQUIREMENT_WORDS])
    else:
        print(f"installing the changed wheels into {VENV.name}/", flush=True)
        stamp.unlink()
        run([*installing, "--reinstall", "--no-deps", *wheels])
        run([uv, "pip", "check", "--quiet", "--python", python])
    stamp.write_text(f"{base} {ours}")


def build() -> list[Path]:
    """Build and install what changed; return the wheels."""
    require_python()
    STAMPS.mkdir(parents=True, exist_ok=True)
    wheels = [build_wheel(wheel) for wheel in WHEELS]
    install(wheels)
    return wheels


if __name__ == "__main__":
    build()
    print(f"ready: {os.path.relpath(VENV / 'bin')}/ holds python, aasm, aasm-run and aasm-py")
