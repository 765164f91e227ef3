"""A set-up that a test breaks, asks the doctor about, and mends by typing what the doctor says."""

from __future__ import annotations

import socket
from pathlib import Path

from aasm_py.doctor.examination import examine
from aasm_py.doctor.look import Look
from aasm_py.doctor.table import CHECKS
from agent_assembly.diagnosis import Finding
from support.doctor import diagnose, type_remedy
from support.gateway import clean_environment


class Setup:
    """A home and the variables of a person's shell; `variables` change as remedies are typed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.variables = {"AASM_HOME": str(home), "AASM_GATEWAY_PORT": str(free_port())}
        self.without: set[str] = set()

    @property
    def environ(self) -> dict[str, str]:
        """Every variable of the shell."""
        kept = {name: value for name, value in clean_environment().items() if name not in self.without}
        return {**kept, **self.variables}

    def rows(self, *names: str) -> dict[str, Finding]:
        """The rows of these checks, looked at in this process."""
        checks = [check for check in CHECKS if check.name in names]
        assert len(checks) == len(names), f"there are no such checks: {names}"
        return {row.check: row for row in examine(Look(self.environ), checks)}

    def row(self, name: str) -> Finding:
        """The one row of this name."""
        row = self.rows(name)[name]
        assert row.status in ("ok", "skip") or row.remedy, f"no remedy: {row}"
        assert row.status in ("ok", "skip") or not row.remedy.startswith(" "), row
        return row

    def told(self, name: str) -> dict[str, str]:
        """The row as the command `aasm-py doctor` prints it."""
        variables = {key: value for key, value in self.variables.items() if key != "AASM_HOME"}
        return diagnose(self.variables.get("AASM_HOME", self.home), environ=variables)[1][name]

    def type(self, remedy: str, alternative: int = 0) -> None:
        """Type a remedy as printed; what it exports or unsets holds from now on."""
        before = self.environ
        after = type_remedy(remedy, before, self.home.parent, alternative=alternative)
        for name in set(self.variables) - set(after):
            del self.variables[name]
        self.variables.update(
            {name: value for name, value in after.items() if before.get(name) != value and name not in ("_", "SHLVL")}
        )

    def mended(self, name: str, status: str, found: str, alternative: int = 0) -> None:
        """See the row as the command prints it, type its remedy, and see it gone."""
        row = self.told(name)
        assert (row["status"], found in row["found"]) == (status, True), row
        self.type(row["remedy"], alternative)
        assert self.told(name)["status"] == "ok", self.told(name)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
