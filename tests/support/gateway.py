"""A real gateway for tests: the `aasm` program on a free port, with a home of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 20.0
STOP_SECONDS = 20.0

Row = dict[str, Any]


def find_aasm() -> Path:
    """Return the program under test: beside this Python, else the one that cargo built last."""
    for candidate in (Path(sys.executable).parent / "aasm", ROOT / "native" / "target" / "release" / "aasm"):
        if os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError("the program aasm is not built; run make build")


def clean_environment(**more: str) -> dict[str, str]:
    """Return the process's variables without any of ours and without Python's, plus `more`."""
    dropped = ("PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS", "PYTHONSAFEPATH", "PYTEST_CURRENT_TEST")
    kept = {name: value for name, value in os.environ.items() if name not in dropped and not name.startswith("AASM_")}
    return {**kept, **more}


class Gateway:
    """One gateway process and the home that it keeps. `port` and `url` are known once it has started."""

    def __init__(self, home: Path, *, policy: str | None = None, options: Sequence[str] = ()) -> None:
        self.home = home
        self.options = list(options)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        if policy is not None:
            self.write_policy(policy)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the gateway was not started"
        return self._process.pid

    def write_policy(self, text: str, name: str = "policy.yaml") -> Path:
        """Put an operator's policy into the home, for the next start."""
        directory = self.home / "policies"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def start(self, *, port: int = 0) -> Gateway:
        """Start it and wait until it is healthy; raise AssertionError with its log when it does not become so."""
        command: list[str | Path] = [find_aasm(), "start", "--mode", "local", "--foreground", "--port", str(port)]
        self._process = subprocess.Popen(
            [*command, "--home", self.home, *self.options],
            env=clean_environment(AASM_HOME=str(self.home)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.home,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                said = self._process.communicate()[0].decode(errors="replace")
                raise AssertionError(f"the gateway ended with {self._process.returncode}:\n{said}\n{self.log()}")
            facts = self.pid_file()
            if facts.get("pid") == str(self._process.pid):
                self.port = int(facts["port"])
                if self._healthy():
                    return self
            time.sleep(0.01)
        self.kill()
        raise AssertionError(f"the gateway did not become healthy within {START_SECONDS} s:\n{self.log()}")

    def _healthy(self) -> bool:
        try:
            return self.request("GET", "/healthz")[0] == 200
        except OSError:
            return False

    def pid_file(self) -> dict[str, str]:
        try:
            text = (self.home / "gateway.pid").read_text()
        except FileNotFoundError:
            return {}
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def log(self) -> str:
        path = self.home / "log" / "gateway.log"
        return path.read_text(errors="replace") if path.exists() else "(no log)"

    def stop(self) -> int:
        """End it as an operator does, with SIGTERM; return its exit code."""
        if self._process is None or self._process.poll() is not None:
            return self._ended()
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the gateway did not end within {STOP_SECONDS} s of SIGTERM:\n{self.log()}") from None
        return self._ended()

    def kill(self) -> None:
        """End it as a crash does, with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
            self._ended()

    def _ended(self) -> int:
        if self._process is None:
            return 0
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process.returncode

    def pause(self) -> None:
        """Make it hang: it accepts connections (the kernel does) and never answers."""
        os.kill(self.pid, signal.SIGSTOP)
        # The signal takes effect a moment after it was sent.
        deadline = time.monotonic() + START_SECONDS
        while _state(self.pid) != "T" and time.monotonic() < deadline:
            time.sleep(0.001)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 10.0,
    ) -> tuple[int, bytes]:
        """Send one request; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def control(self, path: str, **parameters: object) -> dict[str, Any]:
        """Return what the control plane answers to the operator."""
        token = (self.home / "operator.token").read_text().strip()
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        status, body = self.request("GET", target, headers={"Authorization": f"Bearer {token}"})
        assert status == 200, f"{target}: {status} {body!r}"
        answer = json.loads(body)
        assert isinstance(answer, dict)
        return answer

    def audit(self, *, settled: bool = True, seconds: float = 10.0, **filters: object) -> list[Row]:
        """Return the records that fit, oldest first.

        Waits until the index has what is in the log now and, when `settled`, until none of them is open.
        """
        deadline = time.monotonic() + seconds
        while True:
            answer = self.control("/v1/audit", order="asc", limit=1000, **filters)
            rows: list[Row] = answer["records"]
            behind = answer["indexed_through"] < answer["head"]["seq"]
            still_open = settled and any(row["outcome"] is None for row in rows)
            if not behind and not still_open:
                return rows
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds} s records are still open or not indexed: {rows}")
            time.sleep(0.05)

    def verify(self) -> subprocess.CompletedProcess[str]:
        """Run `aasm audit verify` over the home."""
        return subprocess.run(
            [find_aasm(), "audit", "verify", "--home", self.home],
            env=clean_environment(AASM_HOME=str(self.home)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def stop_gateway_of(home: Path) -> None:
    """End a gateway that something under test started for `home`, if there is one."""
    facts = Gateway(home).pid_file()
    if facts and is_gateway(int(facts["pid"])):
        os.kill(int(facts["pid"]), signal.SIGCONT)
        os.kill(int(facts["pid"]), signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while is_gateway(int(facts["pid"])) and time.monotonic() < deadline:
            time.sleep(0.02)


def is_gateway(pid: int) -> bool:
    """Whether `pid` is a live `aasm` process."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = _state(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and os.path.basename(words[0]) == b"aasm"


def _state(pid: int) -> str:
    """The process's state as the kernel names it: R, S, D, T for stopped, Z."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def gateways_under(directory: Path) -> list[int]:
    """Return the live gateways whose home lies under `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_gateway(int(entry.name)):
            try:
                words = (entry / "cmdline").read_bytes()
                variables = (entry / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(directory) in words + variables:
                found.append(int(entry.name))
    return found
