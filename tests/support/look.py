"""Some of the doctor's checks, over a real set-up, in this process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from aasm_py.doctor import control_plane, gateway
from aasm_py.doctor.look import Look
from aasm_py.doctor.runner import run_checks
from agent_assembly.diagnosis import Finding
from support.gateway import clean_environment
from support.programs import BIN, search_path

CHECKS = (*gateway.CHECKS, *control_plane.CHECKS)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def shell(home: Path, **more: object) -> dict[str, str]:
    """The variables of a person's shell in which the environment under test is activated, with `more`."""
    plain = {name: value for name, value in clean_environment().items() if name.lower() not in _PROXIES}
    given = {name: str(value) for name, value in more.items()}
    return {**plain, "PATH": search_path(), "AASM_HOME": str(home), **given}


def rows(environ: Mapping[str, str], *names: str, **arguments: object) -> dict[str, Finding]:
    """The rows of the checks `names`, or of all about the gateway, looked at from `environ`; nothing is redacted."""
    chosen = [check for check in CHECKS if not names or check.name in names]
    return {row.check: row for row in run_checks(Look(environ, arguments=arguments), chosen)}


def row(environ: Mapping[str, str], name: str, **arguments: object) -> Finding:
    """One row."""
    return rows(environ, name, **arguments)[name]


def told(environ: Mapping[str, str], name: str) -> dict[str, str]:
    """One row as the command `aasm-py doctor` tells it to a shell with these variables."""
    result = subprocess.run(
        [BIN / "aasm-py", "doctor", "--json"],
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode in (0, 1), result.stderr
    found: dict[str, str] = next(each for each in json.loads(result.stdout)["checks"] if each["check"] == name)
    return found
