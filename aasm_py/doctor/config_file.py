"""The row about `config.yaml`, and how what is wrong in it is put right."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

from aasm_py.doctor.amounts import count
from aasm_py.doctor.commands import read_small
from aasm_py.doctor.look import Look
from aasm_py.doctor.troubles import Trouble, finding, inspect, move_away
from agent_assembly.diagnosis import Finding, Setting, read_config_file
from agent_assembly.exceptions import ConfigurationError

NAME, ROW = "config.yaml", "configuration file"
_BYTES = 64 << 10
_PLACE = re.compile(r"(?P<path>/.*?):(?P<line>\d+):(?P<column>\d+): (?P<problem>.*)", re.DOTALL)
_UNKNOWN = re.compile(r"unknown setting '(?P<name>[^']*)', did you mean '(?P<near>[^']*)'\?")
_WORD = re.compile(r"[A-Za-z_]{1,24}")
_HARMLESS = re.compile(r"[A-Za-z_]{1,24}|[^\w\s]|<[a-z ]{1,24}>")

# The settings whose own rows say what is wrong with their lines, and how it is put right.
WITH_ROW = ("gateway_url", "api_key", "mode", "enforcement_mode")

Values = Mapping[str, tuple[Any, str]]


class Fault(NamedTuple):
    """What the reader says about one place of the file."""

    path: str
    line: int
    problem: str

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


def values(look: Look) -> Values:
    """What the file says by name, with `path:line`; nothing where it is not read or cannot be used."""

    def read() -> Values:
        if look.home is None or look.environ.get("AASM_RUN_ID") or "config.yaml" in look.problems:
            return {}
        try:
            return read_config_file(look.path(NAME), warn=False)
        except ConfigurationError:
            # Changed since the settings were resolved.
            return {}

    return look.once("values of config.yaml", read)


def fault(look: Look) -> Fault | None:
    """The place that makes the file unusable, where it is one."""
    problem = look.problems.get("config.yaml")
    found = None if problem is None else _PLACE.fullmatch(str(problem))
    return None if found is None else Fault(found["path"], int(found["line"]), found["problem"])


def fault_of(look: Look, setting: Setting) -> Fault | None:
    """The fault of the file, when it is about the value of `setting`."""
    found = fault(look)
    return found if found is not None and _is_about(found, setting.name) else None


def _is_about(fault: Fault, name: str) -> bool:
    return fault.problem.startswith(f"{name} ")


def row_of_fault(look: Look) -> str:
    """The row that says what makes the file unusable, empty where nothing does."""
    if NAME not in look.problems:
        return ""
    found = fault(look)
    about = (row for row in WITH_ROW if row not in look.problems and found is not None and _is_about(found, row))
    return next(about, ROW)


def removal(path: str, line: int) -> str:
    """Take one line out of the file; in words where it is not one by itself."""
    if _stands_alone(path, line):
        return f"sed -i.bak {line}d {shlex.quote(path)}"
    return editing(path)


def written(fault: Fault) -> str:
    """The value in the line of a fault, as it stands there."""
    try:
        lines = read_small(fault.path, _BYTES).decode("utf-8", "replace").splitlines()
        return lines[fault.line - 1].partition(":")[2].strip()
    except (OSError, IndexError):
        return ""


def replacement(path: str, line: int, text: str) -> str:
    """Put `text`, which has no slash, in the place of one line."""
    if _stands_alone(path, line):
        return f"sed -i.bak {shlex.quote(f'{line}s/.*/{text}/')} {shlex.quote(path)}"
    return editing(path)


def editing(path: str) -> str:
    """Open the file in the editor of the person."""
    return f"${{EDITOR:-vi}} {shlex.quote(path)}"


def configuration_file(look: Look) -> Finding:
    """The row `configuration file`."""
    name = ROW
    if look.home is None:
        return Finding(name, "skip", "no home directory is known")
    if look.environ.get("AASM_RUN_ID"):
        return Finding(name, "skip", "not read inside a run (AASM_RUN_ID is set): the launcher has read it")
    path = look.path(NAME)
    if not os.path.lexists(path):
        return Finding(name, "ok", f"none; it would be {path}")
    broken, told = fault(look), row_of_fault(look)
    troubles = inspect(path)
    if broken is not None and told != ROW and not troubles:
        return Finding(name, "skip", f"{broken.place} cannot be used, nor is the rest; see the row {told}")
    if not any(trouble.status == "fail" for trouble in troubles):
        problem = _problem(path)
        if problem is not None:
            troubles.append(problem)
    given = values(look)
    fine = f"{path}: {count(len(given), 'setting')}" + (f" ({', '.join(given)})" if given else "")
    return finding(name, troubles, fine)


def _problem(path: str) -> Trouble | None:
    try:
        # By itself: the settings may not have come as far as the file, for the sake of the home.
        read_config_file(path, warn=False)
    except ConfigurationError as error:
        message = str(error)
    else:
        return None
    found = _PLACE.fullmatch(message)
    if found is None:
        return Trouble("fail", message, move_away(path))
    line, problem = int(found["line"]), found["problem"]
    ours = re.match(r"home cannot be set|\w+ (is given twice|must )", problem)
    said = f"{path}:{line}:{found['column']}: {problem if ours else _without_values(problem)}"
    unknown = _UNKNOWN.fullmatch(problem)
    if "not UTF-8" in problem:
        return Trouble("fail", said, _converted(path))
    if unknown is not None and _WORD.fullmatch(unknown["name"]) and _stands_alone(path, line):
        expression = shlex.quote(f"{line}s/{unknown['name']}/{unknown['near']}/")
        renamed = f"sed -i.bak {expression} {shlex.quote(path)}"
        return Trouble("fail", said, f"{renamed}; or: {removal(path, line)}")
    if ours or problem.startswith("unknown setting"):
        return Trouble("fail", said, removal(path, line))
    return Trouble("fail", said, editing(path))


def _without_values(problem: str) -> str:
    """What YAML quotes of the file may be part of a key; what it wanted, as `,` or `<stream end>`, is none."""
    return re.sub(r"'([^']*)'", lambda found: found[0] if _HARMLESS.fullmatch(found[1]) else "'…'", problem)


def _converted(path: str) -> str:
    start = read_small(path, 2)
    encoding = "UTF-16" if start in (b"\xff\xfe", b"\xfe\xff") else "ISO-8859-1"
    quoted, draft = shlex.quote(path), shlex.quote(f"{path}.new")
    return f"iconv -f {encoding} -t UTF-8 {quoted} > {draft} && chmod 0600 {draft} && mv {draft} {quoted}"


def _stands_alone(path: str, line: int) -> bool:
    """Whether a line is a whole entry, which can be taken out without touching others."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        lines = read_small(path, _BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return False
    if not 0 < line <= len(lines):
        return False
    entry = re.match(r"(['\"]?)[\w.-]+\1\s*:(\s+[^\s|>{\[&*!]|\s*$)", lines[line - 1])
    goes_on = line < len(lines) and lines[line][:1] in (" ", "\t") and lines[line].strip() != ""
    return entry is not None and not goes_on
