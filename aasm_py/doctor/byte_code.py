"""Whether the modules that every start loads are compiled, as Python itself decides it."""

from __future__ import annotations

import compileall
import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from agent_assembly.diagnosis import Repair


class ByteCode(NamedTuple):
    """`stale` are the sources that the next start compiles, of `number`; `directories` are those to compile.

    `writable` says whether this user can keep the result where Python looks for it.
    """

    stale: tuple[str, ...]
    number: int
    writable: bool
    directories: tuple[str, ...]

    def compile_line(self, environ: Mapping[str, str]) -> str:
        """The command that compiles them, to where this user can write."""
        line = shlex.join([sys.executable, "-m", "compileall", "-q", "-f", *self.directories])
        if self.writable:
            return line
        cache = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        if not os.path.isabs(cache):
            # Nobody knows a home of this user.
            cache = f"/var/tmp/cache-{os.getuid()}"  # noqa: S108 - Python makes what is not there
        return f"export PYTHONPYCACHEPREFIX={shlex.quote(os.path.join(cache, 'python'))}; {line}"

    def repair(self) -> Repair | None:
        """The same, done; None where it cannot be."""
        if not self.writable:
            return None

        def compile_all() -> None:
            done = [compileall.compile_dir(path, quiet=2, force=True) for path in self.directories]
            if not all(done):
                raise OSError("not everything could be compiled")

        return Repair(f"compile {', '.join(self.directories)}", compile_all)


def inspect(sources: Iterable[tuple[str, str]], magic: bytes) -> ByteCode:
    """Compare each source with where its byte code is kept; `magic` is that of the Python in question."""
    pairs = list(sources)
    stale = tuple(source for source, cached in pairs if not is_warm(source, cached, magic))
    roots = {_package_root(source) for source, _ in pairs}
    directories = tuple(sorted(path for path in roots if not any(path.startswith(root + os.sep) for root in roots)))
    writable = all(os.access(_existing(cached), os.W_OK) for source, cached in pairs if source in stale)
    return ByteCode(stale, len(pairs), writable, directories)


def is_warm(source: str, cached: str, magic: bytes) -> bool:
    """Whether Python would take `cached` for `source` instead of compiling (PEP 552)."""
    try:
        with open(cached, "rb") as file:
            header = file.read(16)
        facts = os.stat(source)
    except OSError:
        return False
    if len(header) < 16 or header[:4] != magic:
        return False
    if int.from_bytes(header[4:8], "little"):
        return True  # by the source's hash, which Python compares when it is asked to
    moment, size = int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little")
    return (moment, size) == (int(facts.st_mtime) & 0xFFFFFFFF, facts.st_size & 0xFFFFFFFF)


def _package_root(source: str) -> str:
    directory = os.path.dirname(source)
    while os.path.isfile(os.path.join(os.path.dirname(directory), "__init__.py")):
        directory = os.path.dirname(directory)
    return directory


def _existing(path: str) -> str:
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path
