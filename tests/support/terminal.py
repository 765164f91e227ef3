"""A terminal as a person has it: commands are typed into a shell, in a home directory that is somebody's."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import socket
import struct
import subprocess
import termios
from pathlib import Path

from support.gateway import clean_environment
from support.programs import BIN

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# A line, and after it the order to go back up and write something else there: what a progress display leaves.
_TAKEN_BACK = re.compile(r"[^\n]*\n(?:\x1b\[\?25h|\r)*\x1b\[1A")
# So wide that no table is wrapped, whatever the paths in it.
COLUMNS, LINES = 400, 50


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Terminal:
    """Types into `/bin/sh` in `directory`; the user's home is `home`, the gateway's port a free one."""

    def __init__(self, home: Path, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._environ = clean_environment(
            HOME=str(home),
            PATH=f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            TERM="xterm",
            AASM_GATEWAY_PORT=str(self.port),
        )
        # Would say something else about the terminal than what it is.
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            self._environ.pop(name, None)

    def type(self, command: str, seconds: float = 60.0) -> str:
        """Run `command`; return what the terminal shows, without colours."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        with subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=self.directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            try:
                shown = _read(ours)
                process.wait(seconds)
            finally:
                process.kill()
                os.close(ours)
        text = _CONTROLS.sub("", _TAKEN_BACK.sub("", shown.decode("utf-8", "replace")))
        # A line that was written over shows what was written last.
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _read(descriptor: int) -> bytes:
    data = b""
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:
            return data  # how Linux says that nobody holds the other end
        if not chunk:
            return data
        data += chunk
