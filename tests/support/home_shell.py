"""A shell at a terminal as a person has it: commands are typed one by one, in a home directory that is somebody's."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from support.gateway import clean_environment
from support.odd_gateways import free_port
from support.programs import search_path
from support.pseudo_terminal import open_terminal, read_to_end, without_looks

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# A line, and after it the order to go back up and write something else there: what a progress display leaves.
_TAKEN_BACK = re.compile(r"[^\n]*\n(?:\x1b\[\?25h|\r)*\x1b\[1A")
# So wide that no table is wrapped, whatever the paths in it.
COLUMNS, LINES = 400, 50


class HomeShell:
    """Types into `/bin/sh` in `directory`; the user's home is `home`, the gateway's port a free one."""

    def __init__(self, home: Path, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._environ = {
            **without_looks(clean_environment()),
            "HOME": str(home),
            "PATH": search_path(),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "AASM_GATEWAY_PORT": str(self.port),
        }

    def type(self, command: str, seconds: float = 60.0) -> str:
        """Run `command`; return what the terminal shows, without colours."""
        ours, theirs = open_terminal(COLUMNS, LINES)
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
                shown = read_to_end(ours, seconds)
                process.wait(seconds)
            finally:
                process.kill()
                os.close(ours)
        text = _CONTROLS.sub("", _TAKEN_BACK.sub("", shown.decode("utf-8", "replace")))
        # A line that was written over shows what was written last.
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
