"""The row about the operator's policies: what is in force, and whether what lies on the disk would be."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Sequence
from typing import NamedTuple

from aasm_py.doctor.commands import aasm, posture, read_small, restart_line
from aasm_py.doctor.home import mended_first
from aasm_py.doctor.look import Look
from aasm_py.doctor.sighting import Sighting, sight
from aasm_py.doctor.words import listed, one_line
from agent_assembly.diagnosis import Finding, check_policies, split_url
from agent_assembly.exceptions import PolicyError

# More than a policy may have, so that the checker is the one to refuse.
_MOST_BYTES = (1 << 20) + 1
_MOST_FILES = 100
_STARTER = "the starter, which allows every tool and records it"


class Unfit(Exception):
    """A policy that no gateway starts with; `remedy` is what to type, before a `restart` where that helps."""

    def __init__(self, path: str, problem: str, remedy: str, *, restart: bool = True) -> None:
        super().__init__(f"{path}{problem}")
        self.remedy = remedy
        self.restart = restart


class Documents(NamedTuple):
    """The policies that a start would load: where they lie, the files, and whether a start was told so."""

    place: str
    files: tuple[str, ...]
    named: bool

    def __str__(self) -> str:
        if self.named:
            return f"{self.place} (--policy of the last start)"
        names = listed(os.path.basename(path) for path in self.files)
        return f"{names or 'no policies'} in {self.place}"


def check_policy(look: Look) -> Finding:
    """Which policy decides, and whether that is the one that lies on the disk."""
    seen = sight(look)
    if seen.state == "keyed":
        return _of_another(seen)
    if look.home is None:
        return Finding("policy", "skip", seen.problem or "no home directory is known")
    if seen.named and seen.state != "own":
        return Finding("policy", "skip", "that of the gateway that was named, which cannot be asked")
    try:
        documents = find_documents(look)
        unchecked = check_documents(documents)
    except Unfit as error:
        found = f"no gateway starts with {one_line(str(error), 400)}"
        if seen.state == "own" and error.restart:
            return Finding("policy", "fail", found, f"{error.remedy} && {_restart(look, seen)}")
        return Finding("policy", "fail", found, error.remedy)
    note = f"; their content was not checked: {unchecked}" if unchecked and documents.files else ""
    if seen.state == "own":
        return _in_force(look, seen, documents, note)
    if seen.state == "stuck":
        return Finding("policy", "skip", f"the gateway does not say; on the disk: {documents}{note}")
    first = mended_first(look)
    if first:
        return Finding("policy", "skip", f"no gateway answers, and none can be started yet: see the row {first}")
    if documents.files:
        return Finding("policy", "ok", f"no gateway answers; the next start takes {documents}{note}")
    return Finding("policy", "warn", f"no gateway answers; the next start takes {_STARTER}", _writing(documents))


def _of_another(seen: Sighting) -> Finding:
    assert seen.probe is not None
    revision = one_line(seen.probe.policy_revision, 60)
    if seen.probe.policy_source == "starter":
        return Finding("policy", "warn", f"{_STARTER}, at {seen.url}", "ask its operator to put a policy into force")
    return Finding("policy", "ok", f"revision {revision} of {seen.url}")


def _in_force(look: Look, seen: Sighting, documents: Documents, note: str) -> Finding:
    assert seen.probe is not None
    revision = f"revision {one_line(seen.probe.policy_revision, 60)}"
    starter = seen.probe.policy_source == "starter"
    changed = _changed_since_start(look, documents)
    if changed or starter == bool(documents.files):
        what = _STARTER if starter else "what was there at its start"
        found = f"not in force yet: {documents} changed after the gateway's start"
        return Finding("policy", "warn", f"{found}; in force: {what}, {revision}{note}", _restart(look, seen))
    if starter:
        remedy = f"{_writing(documents)} && {_restart(look, seen)}"
        return Finding("policy", "warn", f"in force: {_STARTER}; {revision}", remedy)
    return Finding("policy", "ok", f"in force: {documents}, {revision}{note}")


def _restart(look: Look, seen: Sighting) -> str:
    return restart_line(look, split_url(seen.url)[2])


def _writing(documents: Documents) -> str:
    # The last step because a gateway refuses what an editor, under the usual umask, leaves writable for the group.
    directory, file = shlex.quote(documents.place), shlex.quote(os.path.join(documents.place, "policy.yaml"))
    return f"mkdir -p -m 0700 {directory} && ${{EDITOR:-vi}} {file} && chmod 0600 {file}"


def _changed_since_start(look: Look, documents: Documents) -> bool:
    """Whether a policy was written, renamed or removed after the gateway had loaded them."""
    try:
        started = os.stat(look.path("gateway.pid")).st_mtime_ns
    except OSError:
        return False
    newest = 0
    for path in (documents.place, *documents.files):
        try:
            status = os.stat(path)
        except OSError:
            continue
        # The inode's own time as well: a file that is moved here keeps the time of its content.
        newest = max(newest, status.st_mtime_ns, 0 if stat.S_ISDIR(status.st_mode) else status.st_ctime_ns)
    return newest > started


def find_documents(look: Look) -> Documents:
    """The policies that a start of this home's gateway would load; raise Unfit when it would refuse where they lie."""
    named = posture(look).get("policy")
    if isinstance(named, str):
        if not os.path.lexists(named):
            said = ", which the last start was told with --policy and which is gone"
            raise Unfit(named, said, f"{aasm(look, 'stop')}; or: put {shlex.quote(named)} back", restart=False)
        if not os.path.isdir(named):
            return Documents(named, (named,), True)
        return Documents(named, _files_of(named), True)
    place = look.path("policies")
    if os.path.islink(place):
        real = shlex.quote(os.path.realpath(place))
        link = shlex.quote(place)
        raise Unfit(place, ", a symbolic link", f"rm {link} && cp -R {real} {link} && chmod -R go-w {link}")
    return Documents(place, _files_of(place) if os.path.lexists(place) else (), False)


def _files_of(directory: str) -> tuple[str, ...]:
    _check_owner(directory)
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise Unfit(directory, f": {error.strerror}", f"chmod u+rwx {shlex.quote(directory)}") from None
    chosen = [name for name in names if os.path.splitext(name)[1].lower() in (".yaml", ".yml")]
    return tuple(os.path.join(directory, name) for name in sorted(chosen, key=os.fsencode))


def _check_owner(path: str) -> None:
    """Whoever can write a policy, or put another in its place, decides what is allowed."""
    quoted = shlex.quote(path)
    try:
        status = os.stat(path)
    except OSError as error:
        if os.path.islink(path):
            raise Unfit(path, ", a symbolic link to nothing", f"rm {quoted}") from None
        raise Unfit(path, f": {error.strerror}", f"ls -ld {quoted}", restart=False) from None
    if status.st_uid not in (0, os.geteuid()):
        raise Unfit(path, f", which belongs to user {status.st_uid}", f'sudo chown "$(id -un)" {quoted}')
    if status.st_mode & 0o022:
        raise Unfit(path, ", which others can write", f"chmod go-w {quoted}")


def check_documents(documents: Documents) -> str:
    """Raise Unfit for the first thing that a gateway refuses; return why the content was not looked at, if so."""
    texts: list[tuple[str, str]] = []
    for path in documents.files[:_MOST_FILES]:
        _check_owner(path)
        texts.append((path, _text(path)))
    if not texts:
        return ""
    if len(documents.files) > _MOST_FILES:
        return f"there are more than {_MOST_FILES} files"
    try:
        if not check_policies(texts):
            return "the native module is missing"
    except PolicyError as error:
        raise _invalid(error.diagnostics, str(error), documents) from None
    return ""


def _text(path: str) -> str:
    quoted = shlex.quote(path)
    try:
        data = read_small(path, _MOST_BYTES)
    except PermissionError:
        raise Unfit(path, ", which cannot be read", f"chmod u+r {quoted}") from None
    except OSError:
        raise Unfit(path, ", which is no file", f"mv {quoted} {shlex.quote(path + '.off')}") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unfit(path, f":{line}: not UTF-8; save it so", f"${{EDITOR:-vi}} {quoted}") from None


def _invalid(diagnostics: Sequence[object], text: str, documents: Documents) -> Unfit:
    rows = [row for row in diagnostics if isinstance(row, dict)]
    if not rows:
        return Unfit(documents.place, f": {text}", f"${{EDITOR:-vi}} {shlex.quote(documents.files[0])}")
    first = rows[0]
    path = str(first.get("file") or documents.files[0])
    place = "".join(f":{first[name]}" for name in ("line", "column") if first.get(name))
    suggestion = f" (did you mean `{first['suggestion']}`?)" if first.get("suggestion") else ""
    more = f"; and {len(rows) - 1} more" if len(rows) > 1 else ""
    problem = f"{place}: {one_line(str(first.get('message', '')))}{suggestion}{more}"
    return Unfit(path, problem, f"${{EDITOR:-vi}} {shlex.quote(path)}")
