"""The rows about the home directory and the files that are trusted."""

from __future__ import annotations

import os
import re
import shlex

from aasm_py.doctor import config_file, pid_file
from aasm_py.doctor.commands import read_small, restart_line
from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.troubles import CLOSED, Trouble, finding, home_is_closed, inspect, nearest, own_directory
from agent_assembly.diagnosis import Finding

# What the gateway looks at before it starts; the other files of the home have rows of their own.
_DIRECTORIES = ("audit", "log", "policies", "spool")
_FILES = ("state.db", "log/gateway.log", "audit/head", "audit/index.db")

_SECRETS = {
    "gateway.secret": re.compile(rb"[0-9a-f]{64}\n?"),
    "operator.token": re.compile(rb"aasm_op_[0-9a-f]{64}\s*"),
}
_SECRET_BYTES = 4096


def home(look: Look) -> Finding:
    """The row `home`."""
    if look.home is None:
        return Finding("home", "fail", str(look.problems["home"]), _elsewhere(look))
    source = look.settings.source("home")
    place = look.home if source == "default" else f"{look.home}, from {source}"
    if not os.path.lexists(look.home):
        return _missing(look, place)
    if not os.path.islink(look.home) and os.path.exists(look.home) and not os.path.isdir(look.home):
        return finding("home", inspect(look.home, directory=True), place)
    if os.path.islink(look.home) or os.lstat(look.home).st_uid != os.geteuid():
        return _not_ours(look)
    if os.statvfs(look.home).f_flag & os.ST_RDONLY:
        return Finding("home", "fail", f"{look.home} is on a file system that is read-only", _elsewhere(look))
    troubles = inspect(look.home, directory=True, unwanted=0o055)
    for name in _DIRECTORIES:
        troubles += inspect(look.path(name), directory=True)
    for name in _FILES:
        troubles += inspect(look.path(name))
    if not troubles and not os.access(look.home, os.R_OK | os.W_OK | os.X_OK):
        return Finding("home", "fail", f"{look.home} cannot be written", _elsewhere(look))
    return finding("home", [*troubles, *_changing(look)], place)


def mended_first(look: Look) -> str:
    """The row whose failure keeps every program from starting a gateway, whatever else is well; empty for none."""
    if look.once("home", lambda: home(look)).status == "fail":
        return "home"
    return config_file.row_of_fault(look)


def _missing(look: Look, place: str) -> Finding:
    assert look.home is not None
    above = nearest(look.home)
    if not os.path.isdir(above):
        return Finding("home", "fail", f"{place} cannot be made: {above} is not a directory", _elsewhere(look))
    if not os.access(above, os.W_OK | os.X_OK):
        return Finding("home", "fail", f"{place} cannot be made: {above} cannot be written", _elsewhere(look))
    return finding("home", _changing(look), f"{place}: does not exist yet; the first start makes it")


def _not_ours(look: Look) -> Finding:
    assert look.home is not None
    if os.path.islink(look.home):
        target = os.path.realpath(look.home)
        if os.path.isdir(target) and not inspect(target, directory=True):
            found = f"{look.home} is a symbolic link to {target} and is refused"
            return Finding("home", "fail", found, f"export AASM_HOME={shlex.quote(target)}")
        return finding("home", inspect(look.home, directory=True), "")
    (trouble,) = inspect(look.home, directory=True)
    if os.lstat(look.home).st_uid == 0:
        # Something was once run as root with this user's HOME.
        return finding("home", [trouble], "")
    return Finding("home", "fail", trouble.found, _elsewhere(look))


def _changing(look: Look) -> list[Trouble]:
    """A home that is another one in each directory, or for the gateway's own program."""
    assert look.home is not None
    said = look.environ.get("AASM_HOME", "")
    if look.settings.source("home") == "default" and not look.environ.get("HOME"):
        above = os.path.dirname(look.home)
        found = f"HOME is not set; {look.home} is what the user database says, and the program aasm does not ask it"
        return [Trouble("warn", found, f"export HOME={shlex.quote(above)}")]
    if look.settings.source("home") != "variable AASM_HOME" or os.path.isabs(said):
        return []
    found = f"AASM_HOME is the relative path {said}, another directory wherever a program is started"
    if said.startswith("~") and os.path.isabs(os.path.expanduser(said)):
        found = f"AASM_HOME begins with {said.split('/')[0]}, which only the shell understands; aasm takes it literally"
    return [Trouble("warn", found, f"export AASM_HOME={shlex.quote(look.home)}")]


def _elsewhere(look: Look) -> str:
    place = own_directory(look, look.home)
    if place is None:
        return "set AASM_HOME to a directory of yours that can be written"
    return f"export AASM_HOME={shlex.quote(place)}"


def secrets(look: Look) -> Finding:
    """The row `secrets`: what gateway and callers prove themselves with."""
    if look.home is None:
        return Finding("secrets", "skip", "no home directory is known")
    if home_is_closed(look):
        return Finding("secrets", "skip", CLOSED)
    troubles: list[Trouble] = []
    present = []
    for name, form in _SECRETS.items():
        path = look.path(name)
        # Whoever can read the token can change everything; the secret alone opens no more than taking part.
        refused = 0o077 if name == "operator.token" else 0o022
        wrong = inspect(path, refused=refused)
        if os.path.isfile(path):
            present.append(name)
            if not any(trouble.status == "fail" for trouble in wrong):
                # One that is damaged goes, whoever could read it.
                wrong = _content(look, name, form) or wrong
        elif not wrong and pid_file.gateway_lives(look):
            found = f"{path} is missing, and the gateway that runs does not write it again"
            wrong = [Trouble("fail", found, _restart(look))]
        troubles += wrong
    fine = "gateway.secret and operator.token are in order"
    if len(present) < len(_SECRETS):
        missing = " and ".join(name for name in _SECRETS if name not in present)
        fine = f"{missing} not there yet: made when a gateway starts"
    return finding("secrets", troubles, fine)


def _content(look: Look, name: str, form: re.Pattern[bytes]) -> list[Trouble]:
    path = look.path(name)
    try:
        text = read_small(path, _SECRET_BYTES)
    except OSError as error:
        return [Trouble("fail", f"{path} cannot be read: {error.strerror or error}", f"chmod 0600 {shlex.quote(path)}")]
    if form.fullmatch(text):
        return []
    gone = f"rm {shlex.quote(path)}"
    # One that runs holds the former secret in its memory, and nobody can prove anything to it any more.
    remedy = f"{gone} && {_restart(look)}" if pid_file.gateway_lives(look) else gone
    found = f"{path} is damaged: no gateway starts with it, and to one that runs nobody can prove anything"
    return [Trouble("fail", found, remedy)]


def _restart(look: Look) -> str:
    """On the port that it has: agents may know it by that."""
    return restart_line(look, look.pid_file.port if look.pid_file else None)


CHECKS: tuple[Check, ...] = (
    Check("home", "home", lambda look: look.once("home", lambda: home(look))),
    Check("secrets", "home", secrets),
    *pid_file.CHECKS,
)
