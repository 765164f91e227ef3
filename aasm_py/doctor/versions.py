"""The rows about what the gateway and this machine must agree on: versions and clocks."""

from __future__ import annotations

import re
import subprocess
import time
from email.utils import parsedate_to_datetime

from aasm_py.doctor.commands import aasm_program, install_line, restart_line
from aasm_py.doctor.look import Look
from aasm_py.doctor.sighting import Sighting, sight, within
from aasm_py.doctor.words import one_line
from agent_assembly import __version__
from agent_assembly.diagnosis import Finding, gateway_exchange, split_url
from agent_assembly.exceptions import ConfigurationError, GatewayError

_PROGRAM_SECONDS = 1.5
_CLOCK_SECONDS = 1.5
# A proof is refused when its time is further off than this.
REFUSED_SECONDS = 300
NOTICED_SECONDS = 60


def check_versions(look: Look) -> Finding:
    """Gateway and SDK are released together, and are tried together."""
    seen = sight(look)
    if seen.answer is None:
        return Finding("versions", "skip", f"SDK {__version__}; no gateway answers")
    version = one_line(seen.answer.version, 40)
    if version == __version__:
        return Finding("versions", "ok", f"gateway and SDK are {version}")
    found = f"the gateway is {version}, the SDK is {__version__}"
    if seen.state != "own":
        return Finding("versions", "warn", found, _same(look, version))
    restart = restart_line(look, split_url(seen.url)[2])
    installed = _program_version(look)
    if installed == __version__:
        return Finding("versions", "warn", f"{found}; it was started before the last installation", restart)
    found += f", the program aasm is {installed}" if installed else ""
    return Finding(
        "versions", "warn", found, f"{install_line(look, f'agent-assembly[runtime]=={__version__}')} && {restart}"
    )


def _same(look: Look, version: str) -> str:
    # What a stranger says is typed only if it can be nothing but a version.
    if not re.fullmatch(r"\d+(\.\d+){1,3}([ab]|rc)?\d*", version):
        return "ask the operator of the gateway which version it is"
    return install_line(look, f"agent-assembly=={version}")


def _program_version(look: Look) -> str:
    """The version of the program that a start would take; empty when it does not say."""
    program = aasm_program(look)
    if program is None:
        return ""
    try:
        said = subprocess.run(
            [program, "version"],
            env=look.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=look.left(_PROGRAM_SECONDS),
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    name, _, version = said.stdout[:100].decode("ascii", "replace").strip().partition(" ")
    return one_line(version, 40) if name == "aasm" and said.returncode == 0 else ""


def check_clock(look: Look) -> Finding:
    """Proofs carry the time: a clock that is off by much makes every one of them refused."""
    seen = sight(look)
    if seen.answer is None:
        return Finding("clock", "skip", "no gateway answers to compare with")
    try:
        offset = _offset(look, seen)
    except (GatewayError, ConfigurationError, TimeoutError) as error:
        return Finding("clock", "skip", f"the gateway's could not be asked for: {error}")
    if offset is None:
        return Finding("clock", "skip", f"{seen.url} does not say what time it has")
    apart = f"the gateway's is {_span(abs(offset))} {'ahead' if offset > 0 else 'behind'}"
    remedy = restart_line(look, split_url(seen.url)[2]) if seen.state == "own" else "sudo timedatectl set-ntp true"
    if abs(offset) >= REFUSED_SECONDS:
        return Finding("clock", "fail", f"{apart}; beyond {REFUSED_SECONDS} s it refuses every proof", remedy)
    if abs(offset) > NOTICED_SECONDS:
        return Finding("clock", "warn", f"{apart}; from {REFUSED_SECONDS} s on it would refuse every proof", remedy)
    agreement = "to the second" if abs(offset) <= 1.5 else f"within {abs(offset):.0f} s"
    return Finding("clock", "ok", f"agrees with the gateway's {agreement}")


def _offset(look: Look, seen: Sighting) -> float | None:
    """Seconds that the gateway's clock is ahead of ours, or None when it does not tell."""
    seconds = look.left(_CLOCK_SECONDS)
    began, before = time.monotonic(), time.time()
    _, headers, _ = within(seconds + 0.25, lambda: gateway_exchange(seen.url, "GET", "/healthz", {}, b"", seconds))
    took = time.monotonic() - began
    try:
        theirs = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    # The header has whole seconds, cut off.
    return theirs + 0.5 - (before + took / 2)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
