"""What the checks look at: the settings, the home, and whatever else several of them ask for, each found out once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from agent_assembly.diagnosis import Finding, PidFile, Settings, read_pid_file, resolve_settings
from agent_assembly.exceptions import ConfigurationError

T = TypeVar("T")

# Everything ends within five seconds; the rest of them is for starting Python and for printing.
SECONDS = 4.0


class Check(NamedTuple):
    """One row of the table of checks: `function` returns one finding, or several where it looks at several things."""

    name: str
    group: str
    function: Callable[[Look], Finding | list[Finding]]


class Look:
    """One look at a set-up. Safe in threads; what was computed once stays as it was, errors too.

    `environ` are the variables of the person's shell, `arguments` the settings given on a command line, `command` the
    program that is asked about, empty for none.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        command: Sequence[str] = (),
        arguments: Mapping[str, Any] | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self.environ = dict(environ)
        self.command = tuple(command)
        self.arguments = dict(arguments or {})
        self.deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._known: dict[str, tuple[Any, Exception | None]] = {}

    def left(self, most: float = SECONDS) -> float:
        """Seconds that something may still take: `most`, less when the look ends sooner, and never none at all."""
        return max(0.05, min(most, self.deadline - time.monotonic()))

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Return what `compute` returns, or raise what it raised, when it was called under this name first.

        Raises TimeoutError when someone else is at it until the look's time is over.
        """
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        if not lock.acquire(timeout=self.left()):
            raise TimeoutError(f"{name} could not be found out in time")
        try:
            if name not in self._known:
                try:
                    self._known[name] = (compute(), None)
                except Exception as error:  # noqa: BLE001 - given to whoever asks
                    self._known[name] = (None, error)
            value, raised = self._known[name]
        finally:
            lock.release()
        if raised is not None:
            raise raised
        found: T = value
        return found

    @property
    def settings(self) -> Settings:
        """The settings, without those that cannot be used: see `problems`."""
        return self._resolved[0]

    @property
    def problems(self) -> Mapping[str, ConfigurationError]:
        """What cannot be used, by the name of its setting, or "config.yaml" for the file as a whole."""
        return self._resolved[1]

    @property
    def _resolved(self) -> tuple[Settings, dict[str, ConfigurationError]]:
        def resolve() -> tuple[Settings, dict[str, ConfigurationError]]:
            problems: dict[str, ConfigurationError] = {}
            return resolve_settings(self.arguments, self.environ, problems), problems

        return self.once("settings", resolve)

    @property
    def home(self) -> str | None:
        """The home directory, which need not exist; None where none is known."""
        home: str | None = self.settings.home
        return home

    def path(self, *names: str) -> str:
        """The path of something in the home; only where there is one."""
        assert self.home is not None
        return os.path.join(self.home, *names)

    @property
    def pid_file(self) -> PidFile | None:
        """What `gateway.pid` says; None also where it cannot be trusted, which the checks of the home say."""

        def read() -> PidFile | None:
            if self.home is None:
                return None
            try:
                return read_pid_file(self.home)
            except ConfigurationError:
                return None

        return self.once("pid file", read)

    @property
    def enforces(self) -> bool:
        """Whether what cannot be governed would be refused: also where nobody said how hard a denial bites."""
        return self.settings.enforcement_mode not in ("observe", "disabled")
