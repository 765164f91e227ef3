"""Real gateways in conditions that do not come by themselves: of another version, with another time, behind TLS."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from agent_assembly import __version__
from support.gateway import Gateway, clean_environment, find_aasm

_HERE = Path(__file__).resolve().parent


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def preloaded(name: str, directory: Path) -> str:
    """Compile `tests/support/NAME.c` and return the library; skip the test where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is on PATH")
    library = directory / f"{name}.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(_HERE / f"{name}.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return str(library)


def skewed(seconds: int, directory: Path) -> dict[str, str]:
    """Variables under which a program's clock is off by `seconds`."""
    return {"LD_PRELOAD": preloaded("skewed_clock", directory), "SKEWED_CLOCK_SECONDS": str(seconds)}


def program_of_version(minor: int, directory: Path) -> tuple[Path, str]:
    """A copy of the program `aasm` that is of another minor version, and that version.

    Skips the test where the compiler put the version elsewhere than into four bytes of their own.
    """
    head, _, patch = __version__.rpartition(".")
    other = f"{head.partition('.')[0]}.{minor}"
    assert len(other) == len(head)
    directory.mkdir(exist_ok=True)
    path = directory / "aasm"
    path.write_bytes(find_aasm().read_bytes().replace(f"{head}.".encode(), f"{other}.".encode()))
    path.chmod(0o700)
    said = subprocess.run([path, "version"], capture_output=True, text=True, timeout=30, check=True).stdout
    if said.strip() != f"aasm {other}.{patch}":
        pytest.skip(f"the version of this build of aasm cannot be exchanged: {said!r}")
    return path, f"{other}.{patch}"


def start_detached(
    home: Path,
    *,
    program: Path | None = None,
    environ: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Gateway:
    """Start the gateway of `home` as a person does; whoever made the home ends it."""
    command = [str(program or find_aasm()), "start", "--home", str(home), "--port", "0", *options]
    result = subprocess.run(
        command,
        env={**clean_environment(), **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    started = Gateway(home)
    started.port = int(started.pid_file()["port"])
    return started


def certificate(directory: Path) -> Path:
    """A certificate for localhost, with its key, that nobody trusts yet; skip the test where none can be made."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not on PATH")
    key, path = directory / "key.pem", directory / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(path)]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    path.write_text(key.read_text() + path.read_text())
    return path


def write_editor(directory: Path, text: str) -> Path:
    """A program for EDITOR that writes `text` into the file that it is given."""
    source = directory / "edited.txt"
    source.write_text(text)
    path = directory / "editor"
    path.write_text(f'#!/bin/sh\ncat "{source}" > "$1"\n')
    path.chmod(0o700)
    return path
