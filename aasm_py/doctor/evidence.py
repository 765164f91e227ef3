"""What goes into the support bundle, as texts without secrets.

Never in it: records of the audit log, what is in the spool, what policies say, and the files that hold secrets. Of
those there are names, sizes and times.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aasm_py.doctor.commands import aasm_program
from aasm_py.doctor.examination import as_json
from aasm_py.doctor.known_secrets import secret_entries
from aasm_py.doctor.look import Look
from aasm_py.doctor.modes import kernel_facts
from aasm_py.doctor.redaction import Redactor
from aasm_py.doctor.secret_forms import REDACTED
from aasm_py.doctor.sighting import sight
from aasm_py.doctor.subject import facts, subject, target
from agent_assembly import __version__
from agent_assembly.diagnosis import ADAPTERS, SETTINGS, Finding, plain_table

LOG_BYTES = 256 << 10
# So much more of the log is read, redacted, and left out again: a secret may begin before what is shown.
_LOG_BEFORE = 16 << 10
_CONFIGURATION_BYTES = 64 << 10
_MOST_FILES = 2000
_DEEPEST = 3

_DISTRIBUTIONS = (
    *("agent-assembly", "agent-assembly-core", "agent-assembly-gateway"),
    *("httpx", "httpcore", "PyYAML", "typer", "click", "rich", "psutil", "pydantic", "protobuf", "anyio"),
    *("langchain", "langchain-core", "langgraph", "crewai", "pydantic-ai", "openai-agents", "openai", "anthropic"),
    *("google-adk", "mcp", "autogen-agentchat", "llama-index-core", "smolagents"),
    *("opentelemetry-api", "opentelemetry-sdk", "opentelemetry-instrumentation", "ddtrace", "sentry-sdk", "coverage"),
)
# Variables whose values are shown; of all others the names are.
_SHOWN = ("PATH", "LANG", "LANGUAGE", "TERM", "NO_COLOR", "COLUMNS", "TZ", "VIRTUAL_ENV", "CONDA_PREFIX")
_SHOWN_BEGINNINGS = ("AASM_", "PYTHON", "LC_")

# No link is followed: it could lead to anything that this user may read.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC"))

_README = """\
What aasm-py doctor --report collected on this machine. Secrets were taken out wherever they were known or had the form
of a secret, and stand as [redacted]. No program can know every secret: read the files before you send them to anyone.

doctor.txt, doctor.json    the table of the doctor
versions.json              this Python, its distributions that matter, the program aasm, the gateway that answers
settings.json              each setting, where it came from, and what it wins over
environment.txt            the names of all variables; values of a few that matter
config.yaml                the configuration, if there is one
gateway.log                the end of the gateway's log
home.txt                   what lies in the home directory: names, modes, owners, sizes, times; no contents
kernel.json                what the kernel would let a stronger mode do
target.json                with a command: what it comes down to, and which Python it starts

Not in here: the audit log's records, what is in the spool, what policies say, and the files that hold secrets.
"""


def gather(look: Look, findings: Sequence[Finding], redactor: Redactor) -> dict[str, str]:
    """The members of the bundle by name, each without secrets; what cannot be had says so in its place.

    Those whose names end in .json are JSON, also then.
    """
    found: dict[str, Callable[[], Any]] = {
        "doctor.txt": lambda: _table(findings),
        "doctor.json": lambda: as_json(findings),
        "versions.json": lambda: versions(look),
        "settings.json": lambda: settings(look),
        "environment.txt": lambda: environment(look),
        "config.yaml": lambda: configuration(look),
        "gateway.log": lambda: log(look, redactor),
        "home.txt": lambda: listing(look),
        "kernel.json": lambda: kernel_facts(look),
    }
    if look.command:
        found["target.json"] = lambda: target_facts(look)
    members = {"README.txt": _README}
    for name, collect in found.items():
        is_json = name.endswith(".json")
        try:
            data = collect()
        except Exception as error:  # noqa: BLE001 - what one part runs into must not cost the others
            said = f"could not be collected: {type(error).__name__}: {error}"
            data = {"problem": said} if is_json else said + "\n"
        members[name] = json.dumps(redactor.data(data), indent=2) + "\n" if is_json else redactor.text(data)
    return members


def _table(findings: Sequence[Finding]) -> str:
    return f"agent-assembly {__version__}, {_moment(time.time())}\n\n{plain_table(findings)}"


def versions(look: Look) -> dict[str, Any]:
    """What is installed here, and what answers as gateway."""
    seen = sight(look)
    answer = seen.answer
    return {
        "agent_assembly": __version__,
        "python": {
            "version": sys.version,
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "prefix": sys.prefix,
            "base_prefix": sys.base_prefix,
        },
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "libc": " ".join(platform.libc_ver()),
        },
        "program_aasm": aasm_program(look),
        "gateway": {
            "state": seen.state,
            "url": seen.url,
            "from": seen.source,
            "problem": seen.problem,
            "version": answer.version if answer else None,
            "status": answer.status if answer else None,
            "storage": answer.storage if answer else None,
            "policy_source": answer.policy_source if answer else None,
            "policy_revision": answer.policy_revision if answer else None,
        },
        "distributions": dict(_distributions()),
    }


def _distributions() -> Iterator[tuple[str, str]]:
    for name in sorted({*_DISTRIBUTIONS, *(row.distribution for row in ADAPTERS)}):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
        except Exception as error:  # noqa: BLE001 - a damaged installation is worth knowing, whatever it raises
            yield name, f"cannot be told: {type(error).__name__}"


def settings(look: Look) -> dict[str, Any]:
    """Each setting with its source and what it wins over, and what cannot be used."""
    known = look.settings
    return {
        "settings": {
            row.name: {
                "value": REDACTED if row.secret and known[row.name] else known[row.name],
                "from": known.source(row.name),
                "passed_over": list(known.shadowed(row.name)),
            }
            for row in SETTINGS
        },
        "problems": [{"where": name, "problem": str(error)} for name, error in look.problems.items()],
    }


def environment(look: Look) -> str:
    """One line for each variable."""
    secret = {row.variable for row in SETTINGS if row.secret}
    return "".join(f"{_line(name)}{_shown(name, value, secret)}\n" for name, value in sorted(look.environ.items()))


def _shown(name: str, value: str, secret: set[str]) -> str:
    if name in secret:
        return f"={REDACTED}" if value else "="
    if name.upper().endswith("_PROXY"):
        # A proxy is written with or without a scheme; what stands before its host is nobody's business.
        before, at, host = value.rpartition("@")
        scheme = before.partition("://")[0] + "://" if "://" in before else ""
        return f"={scheme}{REDACTED}@{_line(host)}" if at else f"={_line(value)}"
    if name in _SHOWN or name.startswith(_SHOWN_BEGINNINGS):
        return f"={_line(value)}"
    return ""


def _line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def configuration(look: Look) -> str:
    """The configuration, with nothing of the entries that are secret but their names."""
    data, problem = _end_of(look, "config.yaml", _CONFIGURATION_BYTES, from_start=True)
    if problem:
        return problem
    text = data.decode("utf-8", "replace")
    lines = text.split("\n")
    for first, column, behind in secret_entries(text):
        lines[first] = lines[first][:column] + REDACTED
        for number in range(first + 1, behind):
            lines[number] = REDACTED if lines[number].strip() else ""
    return "\n".join(lines)


def log(look: Look, redactor: Redactor) -> str:
    """The end of the gateway's log, from the beginning of a line."""
    data, problem = _end_of(look, os.path.join("log", "gateway.log"), LOG_BYTES + _LOG_BEFORE)
    if problem:
        return problem
    text = redactor.text(data.decode("utf-8", "replace"))
    if len(data) < LOG_BYTES + _LOG_BEFORE:
        return text
    line = text.find("\n", 0, _LOG_BEFORE)
    return "(what was before is left out)\n" + text[line + 1 if line >= 0 else _LOG_BEFORE :]


def _end_of(look: Look, name: str, most: int, *, from_start: bool = False) -> tuple[bytes, str]:
    """At most `most` bytes of the end (or the start) of a file of the home, or why there are none."""
    if look.home is None:
        return b"", "(no home directory is known)\n"
    path = look.path(name)
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return b"", f"(there is no {path})\n"
    except (OSError, ValueError) as error:
        return b"", f"({path} cannot be read: {getattr(error, 'strerror', None) or error})\n"
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b"", f"({path} is not a file)\n"
        if not from_start:
            os.lseek(descriptor, max(0, status.st_size - most), os.SEEK_SET)
        data = b""
        while len(data) < most and (chunk := os.read(descriptor, most - len(data))):
            data += chunk
        return data, ""
    except OSError as error:
        return b"", f"({path} cannot be read: {error.strerror})\n"
    finally:
        os.close(descriptor)


def listing(look: Look) -> str:
    """What lies in the home: mode, owner, size, time of change, and path of each entry."""
    if look.home is None:
        return "(no home directory is known)\n"
    if not os.path.lexists(look.home):
        return f"(there is no {look.home})\n"
    lines = [_entry(look.home, look.home)]
    for path in _walk(look.home, 1):
        if len(lines) > _MOST_FILES:
            lines.append(f"(more than {_MOST_FILES} entries; the rest is left out)")
            break
        lines.append(path if path.startswith("(") else _entry(path, os.path.relpath(path, look.home)))
    return "\n".join(lines) + "\n"


def _walk(directory: str, depth: int) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            rows = [entry for entry, _ in zip(entries, range(_MOST_FILES + 1), strict=False)]
    except OSError as error:
        yield f"({directory} cannot be read: {error.strerror})"
        return
    for row in sorted(rows, key=lambda row: row.name):
        yield row.path
        if depth < _DEEPEST and row.is_dir(follow_symlinks=False):
            yield from _walk(row.path, depth + 1)


def _entry(path: str, shown: str) -> str:
    try:
        status = os.lstat(path)
        link = f" -> {os.readlink(path)}" if stat.S_ISLNK(status.st_mode) else ""
    except OSError as error:
        return f"({_line(shown)}: {error.strerror})"
    owner = f"{status.st_uid}:{status.st_gid}"
    mode, moment = stat.filemode(status.st_mode), _moment(status.st_mtime)
    return f"{mode}  {owner:>11}  {status.st_size:>12}  {moment}  {_line(shown + link)}"


def _moment(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"@{seconds:.0f}"


def target_facts(look: Look) -> dict[str, Any]:
    """What the command comes down to, and what the Python that it starts says of itself."""
    found = target(look)
    python = subject(look)
    answer = facts(look) if python.words else None
    return {
        "command": shlex.join(look.command),
        "program": found.path,
        "kind": found.kind,
        "governed": found.governed,
        "reason": found.reason,
        "remedy": found.remedy,
        "interpreter": shlex.join(python.words) or None,
        "interpreter_unknown": python.unknown or None,
        "python": answer.facts if answer else None,
        "python_problem": answer.problem if answer else None,
    }
