"""What is wrong with owner, kind and mode of a file that must be trusted, and how it is put right."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from aasm_py.doctor.look import Look
from agent_assembly.diagnosis import Finding, Repair

PRIVATE_FILE, PRIVATE_DIRECTORY = 0o600, 0o700
_SHOWN = 3
CLOSED = "the home directory is not open to you; see the row home"


class Trouble(NamedTuple):
    """One thing that is wrong: `remedy` is a command line (`typed`), or says in words what to do; `act` does it."""

    status: Literal["warn", "fail"]
    found: str
    remedy: str
    typed: bool = True
    act: Callable[[], None] | None = None


def finding(check: str, troubles: Sequence[Trouble], fine: str) -> Finding:
    """One row of all that is wrong, `fine` when nothing is. What is typed mends all of it where it can be typed."""
    if not troubles:
        return Finding(check, "ok", fine)
    ordered = sorted(troubles, key=lambda trouble: trouble.status != "fail")
    found = "; ".join(trouble.found for trouble in ordered[:_SHOWN])
    if len(ordered) > _SHOWN:
        found += f"; and {len(ordered) - _SHOWN} more"
    typed = [trouble for trouble in ordered if trouble.typed]
    if len(ordered) == 1 or not ordered[0].typed:
        remedy = ordered[0].remedy
    else:
        # Of several remedies the first way each; one command line, so that the row is well after it.
        remedy = " && ".join(dict.fromkeys(trouble.remedy.split("; or: ")[0] for trouble in typed))
    acts = [(trouble.remedy, trouble.act) for trouble in ordered if trouble.act is not None]
    repair = None
    if acts:

        def act() -> None:
            for _, each in acts:
                each()

        repair = Repair(" && ".join(what for what, _ in acts), act)
    return Finding(check, ordered[0].status, found, remedy, repair)


def inspect(path: str, *, directory: bool = False, refused: int = 0o022, unwanted: int = 0o044) -> list[Trouble]:
    """What is wrong with `path` before it may be trusted; nothing when it is not there.

    Of its mode the bits of `refused` are a failure, those of `unwanted` a warning.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [_unreachable(path, error)]
    if stat.S_ISLNK(status.st_mode):
        return [_link(path)]
    if stat.S_ISDIR(status.st_mode) != directory or stat.S_ISREG(status.st_mode) == directory:
        kind = "directory" if directory else "file"
        return [Trouble("fail", f"{path} is not a {kind}", move_away(path))]
    if status.st_uid != os.geteuid():
        return [_foreign(path, status.st_uid)]
    wanted = PRIVATE_DIRECTORY if directory else PRIVATE_FILE
    mode = stat.S_IMODE(status.st_mode)
    if mode & refused:
        can = "can be written by others" if mode & 0o022 else "can be read by others"
        return [Trouble("fail", f"{path} {can} (mode {mode:04o}) and is refused", *_chmod(path, wanted))]
    if mode & unwanted:
        can = "can be read by others" if mode & 0o044 else "can be entered by others"
        return [Trouble("warn", f"{path} {can} (mode {mode:04o})", *_chmod(path, wanted))]
    needed = os.R_OK | os.W_OK | (os.X_OK if directory else 0)
    if not os.access(path, needed) and mode & wanted != wanted:
        return [Trouble("fail", f"{path} is closed to you, too (mode {mode:04o})", *_chmod(path, wanted))]
    return []


def home_is_refused(look: Look) -> bool:
    """Whether nothing in the home is trusted, for its own owner, kind or mode."""
    home = look.home
    return home is not None and any(trouble.status == "fail" for trouble in inspect(home, directory=True))


def home_is_closed(look: Look) -> bool:
    """Whether what lies in the home cannot even be looked at, or belongs to somebody else with it."""
    if look.home is None:
        return False
    if not os.path.isdir(look.home):
        # Below a file there is nothing to be looked at either.
        return not os.path.isdir(nearest(look.home))
    return os.stat(look.home).st_uid != os.geteuid() or not os.access(look.home, os.R_OK | os.X_OK)


def move_away(path: str) -> str:
    """Give what stands in the way another name; nothing is lost by it."""
    number = 1
    while os.path.lexists(f"{path}.old{number}"):
        number += 1
    return f"mv {shlex.quote(path)} {shlex.quote(f'{path}.old{number}')}"


def owning(path: str) -> str:
    """Take back what a run as root has made."""
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}chown -R {os.geteuid()} {shlex.quote(path)}"


def own_directory(look: Look, avoid: str | None) -> str | None:
    """A directory that could be the home: it can be trusted and written, or be made."""
    candidates = [look.environ.get("HOME", "")]
    try:
        candidates.append(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        # A container may run under a number that has no name.
        pass
    places = [os.path.join(place, ".aasm") for place in candidates if os.path.isabs(place)]
    for place in [*places, f"/var/tmp/aasm-{os.getuid()}", f"/tmp/aasm-{os.getuid()}"]:  # noqa: S108 - it is made 0700
        if place != avoid and _usable(place):
            return place
    return None


def nearest(path: str) -> str:
    """`path`, or the nearest directory above it that exists."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _usable(place: str) -> bool:
    if os.path.lexists(place):
        return not inspect(place, directory=True) and os.access(place, os.W_OK | os.X_OK)
    above = nearest(place)
    return os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)


def _link(path: str) -> Trouble:
    target = os.path.realpath(path)
    quoted = shlex.quote(path)
    if not os.path.exists(target):
        return Trouble("fail", f"{path} is a symbolic link to {target}, which is not there", f"rm {quoted}")
    found = f"{path} is a symbolic link to {target} and is refused"
    if os.path.isdir(target):
        return Trouble("fail", found, f"rm {quoted} && mv {shlex.quote(target)} {quoted}")
    draft = shlex.quote(f"{path}.new")
    copied = f"cp {shlex.quote(target)} {draft} && chmod 0600 {draft} && mv {draft} {quoted}"
    return Trouble("fail", found, copied)


def _foreign(path: str, owner: int) -> Trouble:
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"uid {owner}"
    return Trouble("fail", f"{path} belongs to another user ({name}) and is refused", owning(path))


def _unreachable(path: str, error: OSError) -> Trouble:
    return Trouble(
        "fail", f"{path} cannot be looked at: {error.strerror}", f"see who may enter {os.path.dirname(path)}", False
    )


def _chmod(path: str, mode: int) -> tuple[str, bool, Callable[[], None]]:
    return f"chmod {mode:04o} {shlex.quote(path)}", True, lambda: close_to_others(path, mode)


def close_to_others(path: str, mode: int) -> None:
    """Give `path` the mode; only where it is a file or directory of this user. What is gone needs none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except PermissionError:
        # Closed to its owner, too.
        if os.path.islink(path):
            raise
        os.chmod(path, mode)
        return
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to another user")
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
