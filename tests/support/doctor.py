"""Asking the installed doctor, and typing what it says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.programs import aasm_py

Rows = dict[str, dict[str, str]]


def diagnose(
    home: Path | str, *words: str | Path, environ: dict[str, str] | None = None, timeout: float = 30.0
) -> tuple[int, Rows]:
    """Run `aasm-py doctor --json WORDS` with `home` as AASM_HOME; return its exit code and its rows by check."""
    result = aasm_py(["doctor", "--json", *words], Path(home), environ=environ, timeout=timeout)
    assert result.returncode in (0, 1), result.stderr
    rows: list[dict[str, Any]] = json.loads(result.stdout)["checks"]
    return result.returncode, {row["check"]: row for row in rows}


def type_remedy(
    remedy: str, environ: dict[str, str], cwd: Path, *, alternative: int = 0, timeout: float = 60.0
) -> dict[str, str]:
    """Type a remedy into a shell, as printed; return the variables of that shell afterwards.

    Of several alternatives, joined by `; or: `, the one of that number.
    """
    command = remedy.split("; or: ")[alternative]
    result = subprocess.run(
        ["bash", "--norc", "-c", f"{command}\ncode=$?; env -0; exit $code"],
        env=environ,
        cwd=cwd,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, f"{command}: {result.stderr.decode(errors='replace')}"
    rows = result.stdout.decode(errors="surrogateescape").split("\0")
    # What the command printed stands in front of the first variable.
    pairs: Sequence[str] = [row.rpartition("\n")[2] if index == 0 else row for index, row in enumerate(rows)]
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
