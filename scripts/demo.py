"""`make demo`: a real LangChain agent under a policy, seen from a terminal, in a home directory that goes away again.

It checks what it shows: any surprise ends it with exit code 1. Nothing is left running, also after Ctrl-C.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from build import VENV
from environments import ROOT, clean_environment

EXAMPLE = ROOT / "examples" / "langchain_support_bot"
COMMAND_SECONDS = 60
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Row = dict[str, object]


class Surprise(Exception):
    """Something that the demo shows is not what it should be."""


class Terminal:
    """Types commands as a person would, shows what they say, and gives it back."""

    def __init__(self, home: Path) -> None:
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        width = shutil.get_terminal_size((110, 40)).columns
        self.environ = {
            **clean_environment(),
            "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "AASM_HOME": str(home),
            "AASM_GATEWAY_PORT": str(free_port()),
            **({"FORCE_COLOR": "1", "COLUMNS": str(width - 2)} if self.colour else {}),
        }

    def say(self, text: str, style: str = "1;36") -> None:
        print(f"\x1b[{style}m{text}\x1b[0m" if self.colour else text, flush=True)

    def type(self, command: str, *expected: str, shown: bool = True) -> str:
        """Run `command` and return what it says; raise Surprise when it fails or does not say all of `expected`."""
        if shown:
            self.say(f"\n$ {command}", "1;32")
        said: list[str] = []
        with subprocess.Popen(
            shlex.split(command),
            cwd=EXAMPLE,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            signal.alarm(COMMAND_SECONDS)
            try:
                for line in process.stdout:
                    said.append(line)
                    if shown:
                        print(f"  {line}", end="", flush=True)
                process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                signal.alarm(0)
        text = _COLOURS.sub("", "".join(said))
        if process.returncode:
            raise Surprise(f"`{command}` ended with {process.returncode}" + ("" if shown else f": {text.strip()}"))
        for words in expected:
            if words not in text:
                raise Surprise(f"`{command}` did not say {words!r}")
        return text


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def show(terminal: Terminal) -> None:
    """The demonstration itself, with what must be seen."""
    terminal.say("An agent with three tools. Its policy allows looking up orders and opening tickets; nobody deletes.")
    terminal.type("cat policy.yaml", "no-deletions")

    terminal.say("\nA denied call raises: its body does not run, and the program, unchanged, catches the exception.")
    terminal.type(
        "aasm-run --policy policy.yaml python agent.py",
        "Order A-1001 of customer C-42 was delivered",
        "blocked  delete_customer: ",
        "customer C-42 is still there",
    )
    terminal.say("\nOr the model is told, and finds another way.")
    terminal.type(
        "aasm-run --policy policy.yaml --on-deny refuse python agent.py",
        "model  → open_ticket(",
        "Ticket T-7 is open",
        "customer C-42 is still there",
    )
    terminal.say("\nEvery call is in the audit log, allowed or not, in a chain that shows whoever changes it.")
    terminal.type("aasm-py audit list", "no-deletions")
    terminal.type("aasm-py audit verify")
    check_records(json.loads(terminal.type("aasm-py audit list --json", shown=False)))


def check_records(rows: list[Row]) -> None:
    """Compare the log with what the two runs did: five attempts, each with its verdict and its end."""
    seen = [(row["tool"], row["decision"], row["outcome"]) for row in rows]
    raised = [("look_up_order", "allow", "returned"), ("delete_customer", "deny", "refused")]
    expected = [*raised, *raised, ("open_ticket", "allow", "returned")]
    if seen != expected:
        raise Surprise(f"the audit log holds {seen}, not {expected}")
    if len({row["run_id"] for row in rows}) != 2:
        raise Surprise("the audit log does not tell the two runs apart")


def gateways(home: Path) -> list[int]:
    """Return the processes that were started with `home` and are no zombies."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(home) in words and os.path.basename(words[0]) == b"aasm":
            found.append(int(entry.name))
    return found


def stop_gateway(home: Path, environ: dict[str, str], *, patience: float) -> None:
    """End the gateway that the first run started. `patience`: how long one may still be on its way up."""
    deadline = time.monotonic() + patience
    while not gateways(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    stop: list[str | Path] = [VENV / "bin" / "aasm", "stop"]
    said = b""
    deadline = time.monotonic() + 10
    # Again and again: one that is on its way up holds no lock yet, and `aasm stop` finds nothing to stop.
    while gateways(home) and time.monotonic() < deadline:
        said = subprocess.run(stop, env=environ, capture_output=True, timeout=20, check=False).stderr
        time.sleep(0.05)
    for pid in gateways(home):
        os.kill(pid, signal.SIGKILL)
        raise Surprise(f"the gateway (pid {pid}) did not stop: {said.decode(errors='replace').strip()}")


def _interrupted(number: int, _: FrameType | None) -> NoReturn:
    if number == signal.SIGALRM:
        raise Surprise(f"a command took more than {COMMAND_SECONDS} s")
    raise KeyboardInterrupt


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _interrupted)
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="agent-assembly-demo-"))
    terminal = Terminal(home)
    whole = False
    try:
        try:
            show(terminal)
            whole = True
        finally:
            # A second Ctrl-C must not leave the gateway behind.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            stop_gateway(home, terminal.environ, patience=0 if whole else 1)
            shutil.rmtree(home, ignore_errors=True)
    except KeyboardInterrupt:
        print("\ninterrupted; the demo's gateway is stopped", file=sys.stderr)
        return 130
    except Surprise as surprise:
        print(f"\nThe demo failed: {surprise}", file=sys.stderr)
        return 1
    terminal.say(f"\nDone in {time.monotonic() - began:.1f} s. The gateway is stopped and its home removed.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
