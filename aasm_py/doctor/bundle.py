"""The support bundle: one archive with what a bug report needs, from which the secrets have been taken out."""

from __future__ import annotations

import io
import os
import shlex
import tarfile
import time
import zipfile
from collections.abc import Mapping, Sequence

from aasm_py.doctor.evidence import gather
from aasm_py.doctor.look import Look
from aasm_py.doctor.redaction import Redactor
from agent_assembly.diagnosis import Finding
from agent_assembly.exceptions import ConfigurationError

DIRECTORY = "aasm-report"
_TAR_ENDINGS = (".tar.gz", ".tgz")
# What zip archives can say of time ends here and there.
_OLDEST, _NEWEST = 1980, 2107


def write_bundle(path: str, look: Look, findings: Sequence[Finding], redactor: Redactor) -> None:
    """Write the bundle to `path`, mode 0600; raise ConfigurationError when it cannot be written, and leave nothing.

    A file that is there is never replaced. The name's ending says the format: .zip, .tar.gz or .tgz.
    """
    check_destination(path)
    members = {
        name: text.encode("utf-8", "backslashreplace") for name, text in gather(look, findings, redactor).items()
    }
    data = _tar(members) if _is_tar(path) else _zip(members)
    _write(path, data)


def check_destination(path: str) -> None:
    """Raise ConfigurationError when no bundle can be written to `path`, as far as that can be told before."""
    if not (_is_tar(path) or path.lower().endswith(".zip")):
        raise ConfigurationError(f"report {path} must end in .zip or .tar.gz, which says what it is to be")
    if os.path.lexists(path):
        raise ConfigurationError(f"report {path} exists; give another name, or type: rm {shlex.quote(path)}")
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        said = "is not a directory" if os.path.lexists(parent) else "does not exist"
        raise ConfigurationError(f"report {path} cannot be written: {parent} {said}; name a directory that is there")


def _is_tar(path: str) -> bool:
    return path.lower().endswith(_TAR_ENDINGS)


def _zip(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    now = time.localtime()[:6]
    moment = (min(max(now[0], _OLDEST), _NEWEST), *now[1:])
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(f"{DIRECTORY}/{name}", moment)
            member.external_attr = 0o100600 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return file.getvalue()


def _tar(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(f"{DIRECTORY}/{name}")
            member.size, member.mode, member.mtime = len(data), 0o600, int(max(time.time(), 0))
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def _write(path: str, data: bytes) -> None:
    try:
        # Made by us or not at all: nothing that was there is followed or written over.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    except FileExistsError:
        check_destination(path)
        raise
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from None
        raise


def _unwritable(path: str, error: Exception) -> ConfigurationError:
    why = getattr(error, "strerror", None) or error
    return ConfigurationError(f"report {path} cannot be written: {why}; name a file in another directory")
