"""A line that says what takes so long: on a terminal only, on standard error, and only when it does take long."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from aasm_py.streams import is_terminal

# What is done sooner needs no word.
PATIENCE_SECONDS = 0.4


class Waiting:
    """Shows `text` with a moving sign while the block runs, if that takes long; calling it changes the text.

    Whatever ends the block, Ctrl-C too, the line is gone and the cursor back before anything else happens.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._timer: Any = None
        self._lock: Any = None
        self._shown: Any = None
        self._over = False

    def __call__(self, text: str) -> None:
        self._text = text
        if self._lock is not None:
            with self._lock:
                if self._shown is not None:
                    self._shown.change(text)

    def __enter__(self) -> Waiting:
        if is_terminal(sys.stderr):
            from threading import Lock, Timer

            self._lock = Lock()
            self._timer = Timer(PATIENCE_SECONDS, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._shown is not None:
                self._shown.end()

    def _show(self) -> None:
        from aasm_py.render import WaitingLine

        with self._lock:
            if not self._over:
                self._shown = WaitingLine(self._text)
