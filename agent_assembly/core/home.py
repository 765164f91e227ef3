"""Whom the files of the home directory must belong to before they are believed.

Imported before the user's program: see the import rules.
"""

from __future__ import annotations

import errno
import os
import stat

from agent_assembly.exceptions import ConfigurationError


def check_owned(path: str, what: str) -> os.stat_result | None:
    """Return the status of `path`, or None when there is nothing; raise ConfigurationError when it cannot be trusted.

    Refused are symbolic links, files of another user, and files that others can write: whoever can change them would
    decide what is enforced. Windows has no such owner and mode; its access lists are left to the installation.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{what} {path} cannot be read: {error.strerror}") from None
    if os.name == "nt":
        return status
    if stat.S_ISLNK(status.st_mode):
        raise ConfigurationError(f"{what} {path} is a symbolic link; put the real one there, or set AASM_HOME to it")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{what} {path} belongs to another user (uid {status.st_uid}); set AASM_HOME to your own"
        )
    if status.st_mode & 0o022:
        wanted = "0700" if stat.S_ISDIR(status.st_mode) else "0600"
        raise ConfigurationError(f"{what} {path} can be written by others; type: chmod {wanted} {path}")
    return status


def readable_by_others(status: os.stat_result) -> bool:
    """Whether group or others may read what `status` describes."""
    return os.name != "nt" and bool(status.st_mode & 0o044)


def ensure_directory(path: str, what: str) -> None:
    """Make `path` with mode 0700 unless it is there; raise ConfigurationError when it cannot be made or trusted."""
    try:
        _make(path)
    except OSError as error:
        raise ConfigurationError(
            f"{what} {path} cannot be made: {error.strerror}; set AASM_HOME to a directory of yours"
        ) from None
    check_owned(path, what)


def _make(path: str) -> None:
    # Not os.makedirs: its mode is that of the last directory only, and the home would be as open as the umask lets it.
    missing = []
    above = path
    while above and not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            # Another process was faster.
            continue
    if not os.path.isdir(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
