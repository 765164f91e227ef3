"""Programs that the doctor asks: started with a time limit, in a group of their own, and never left behind."""

from __future__ import annotations

import ast
import atexit
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

_TAIL = 8 << 10
_ANSWER_LIMIT = 1 << 20
_GRACE = 0.25
_PAUSE = 0.02
# What is left in the pipes after the end; who escaped from the group may go on writing.
_LEFT_READS = 64

# Runs on every Python since 2.7, imports nothing but what is there anyway, and answers on a pipe of its own, as the
# program's standard output may be anybody's by then. `facts` is filled in by the code in between.
_BEFORE = "import sys, os\nsys.path[:] = [entry for entry in sys.path if entry]\nfacts = {}\n"
_AFTER = """
text = (ascii if sys.version_info[0] > 2 else repr)(facts)
os.write(int(sys.argv[1]), text.encode("ascii") + b"\\n")
os._exit(0)
"""


class Ended(NamedTuple):
    """How a program ended: `code` is its exit code, negative for a signal, None when it was ended by the time limit.

    `output` and `error` are what it wrote last on its two streams.
    """

    code: int | None
    output: str
    error: str

    def why(self, seconds: float) -> str:
        """What is to be said of a program that gave no answer within `seconds`."""
        if self.code is None:
            return f"did not answer within {seconds:.1f} s"
        lines = self.error.strip().splitlines()
        # Of a traceback the last line says what it was, of everything else mostly the first.
        line = lines[-1 if "Traceback" in self.error else 0] if lines else ""
        said = f": {line.strip()[:300]}" if line else ""
        if self.code < 0:
            return f"was ended by {_signal_name(-self.code)}{said}"
        return f"ended with exit code {self.code}{said}"


class Child:
    """A program that may write lines on a pipe; its number is appended to `command` when `asked`. Use as a context.

    Raises OSError when it cannot be started. The whole group is ended when the block is left.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], *, asked: bool = False) -> None:
        self._lines: list[bytes] = []
        self._partial = b""
        reading, writing = os.pipe() if asked else (-1, -1)
        try:
            self._process = subprocess.Popen(
                [*command, str(writing)] if asked else list(command),
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(writing,) if asked else (),
                start_new_session=True,
            )
        except BaseException:
            if asked:
                os.close(reading)
            raise
        finally:
            if asked:
                os.close(writing)
        _living[self._process.pid] = self._process
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._answers = reading
        self._output, self._error = self._process.stdout.fileno(), self._process.stderr.fileno()
        self._tails = {self._output: b"", self._error: b""}
        self._open = {descriptor for descriptor in (reading, self._output, self._error) if descriptor >= 0}
        for descriptor in self._open:
            os.set_blocking(descriptor, False)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        _end_group(self._process)
        if self._answers >= 0:
            os.close(self._answers)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def line(self, seconds: float) -> bytes | None:
        """Return the next line of the answer, None when no more will come; raise TimeoutError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not self._lines:
            if self._answers not in self._open:
                return None
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._read(left)
        return self._lines.pop(0)

    def ended(self, seconds: float) -> Ended:
        """Wait for the end, at most `seconds`; say how it was."""
        deadline = time.monotonic() + seconds
        while not self._over() and time.monotonic() < deadline:
            self._read(_PAUSE)
        over = self._over()
        _end_group(self._process)
        for _ in range(_LEFT_READS):
            if not (self._open and self._read(0.0)):
                break
        code = self._process.returncode if over else None
        return Ended(code, self._text(self._output), self._text(self._error))

    def _over(self) -> bool:
        """Whether it has ended; it is not reaped by that, so that the number of its group stays taken."""
        if self._process.returncode is not None:
            return True
        found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is not None

    def _read(self, seconds: float) -> bool:
        """Take what has come, after at most `seconds`; return whether anything did."""
        if not self._open:
            time.sleep(min(seconds, _PAUSE / 4))
            return False
        ready, _, _ = select.select(list(self._open), [], [], seconds)
        for descriptor in ready:
            self._take(descriptor)
        return bool(ready)

    def _take(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._open.discard(descriptor)
        elif descriptor in self._tails:
            self._tails[descriptor] = (self._tails[descriptor] + data)[-_TAIL:]
        elif len(self._partial) < _ANSWER_LIMIT:
            *lines, self._partial = (self._partial + data).split(b"\n")
            self._lines += lines
        else:
            self._open.discard(descriptor)

    def _text(self, descriptor: int) -> str:
        return self._tails[descriptor].decode("utf-8", "replace")


class Answer(NamedTuple):
    """What a Python said about itself, or, where `facts` is None, why it said nothing; `ended` if it started at all."""

    facts: dict[str, Any] | None
    problem: str
    ended: Ended | None


def run(command: Sequence[str], environ: Mapping[str, str], seconds: float) -> Ended:
    """Run `command` to its end; raise OSError when it cannot be started."""
    with Child(command, environ) as child:
        return child.ended(seconds)


def ask_python(interpreter: Sequence[str], code: str, environ: Mapping[str, str], seconds: float) -> Answer:
    """Let a Python (the words that start it, flags included) run `code`, and return the `facts` that it filled in.

    The current directory is not on its path; `code` may use `sys` and `os`. Answers also when it does not start, hangs,
    crashes, or prints whatever it likes. `facts` hold numbers, text, None, and lists and dictionaries of them.
    """
    deadline = time.monotonic() + seconds
    try:
        with Child([*interpreter, "-c", _BEFORE + code + _AFTER], environ, asked=True) as child:
            try:
                line = child.line(seconds)
            except TimeoutError:
                line = None
            ended = child.ended(max(_GRACE, deadline - time.monotonic()) if line is None else _GRACE)
    except (OSError, ValueError) as error:
        return Answer(None, f"cannot be started: {getattr(error, 'strerror', None) or error}", None)
    if line is None:
        return Answer(None, ended.why(seconds), ended)
    try:
        facts = ast.literal_eval(line.decode("ascii"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        return Answer(None, "answered with something that is no answer", ended)
    return Answer(facts, "", ended)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# Those that run, for the end of the doctor: its threads are not waited for.
_living: dict[int, subprocess.Popen[bytes]] = {}
_ending = threading.Lock()
_REAP_SECONDS = 0.5


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with _ending:
        if _living.pop(process.pid, None) is None:
            return
        # Before it is reaped: until then nobody else can have its number.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        try:
            process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            # In the kernel's hands, as on a file system that does not answer: it is nobody's child soon.
            return


@atexit.register
def _end_all() -> None:
    for process in list(_living.values()):
        _end_group(process)
