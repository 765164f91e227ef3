"""The home directory: its files are believed only when nobody else could have written them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent_assembly.core.home import check_owned, ensure_directory, readable_by_others
from agent_assembly.exceptions import ConfigurationError


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    """A missing file is None; a path through a file is an error that says so."""
    assert check_owned(str(tmp_path / "none"), "thing") is None
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be read: Not a directory"):
        check_owned(str(tmp_path / "file" / "below"), "thing")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644, 0o700])
def test_what_only_the_user_can_write_is_believed(tmp_path: Path, mode: int) -> None:
    """Readable by others is not writable by others."""
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    status = check_owned(str(path), "thing")
    assert status is not None
    assert readable_by_others(status) is bool(mode & 0o044)


@pytest.mark.parametrize(("directory", "wanted"), [(False, "0600"), (True, "0700")])
@pytest.mark.parametrize("bit", [0o020, 0o002])
def test_what_others_can_write_is_refused(tmp_path: Path, directory: bool, wanted: str, bit: int) -> None:
    """The message is the command that mends it."""
    path = tmp_path / "thing"
    if directory:
        path.mkdir()
    else:
        path.touch()
    path.chmod(0o700 | bit)
    with pytest.raises(ConfigurationError) as caught:
        check_owned(str(path), "thing")
    assert str(caught.value) == f"thing {path} can be written by others; type: chmod {wanted} {path}"


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    """Also dangling ones, and ones to what would be fine itself."""
    (tmp_path / "real").mkdir(mode=0o700)
    for target in ("real", "missing"):
        link = tmp_path / f"to-{target}"
        link.symlink_to(tmp_path / target)
        with pytest.raises(ConfigurationError, match="is a symbolic link"):
            check_owned(str(link), "thing")
        with pytest.raises(ConfigurationError):
            ensure_directory(str(link), "thing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user_are_refused(tmp_path: Path) -> None:
    """Whoever owns a file can change it."""
    path = tmp_path / "file"
    path.touch(mode=0o600)
    os.chown(path, 65534, -1)
    with pytest.raises(ConfigurationError, match=r"belongs to another user \(uid 65534\)"):
        check_owned(str(path), "thing")


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_every_directory_on_the_way_is_private(tmp_path: Path, umask: int) -> None:
    """Directories are 0700 whatever the umask is: the home as well as what lies in it."""
    old = os.umask(umask)
    try:
        ensure_directory(str(tmp_path / "home" / "spool"), "spool")
    finally:
        os.umask(old)
    for path in (tmp_path / "home", tmp_path / "home" / "spool"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    ensure_directory(str(tmp_path / "home" / "spool"), "spool")


def test_a_directory_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    """A file in the way, and a file system that refuses, are named with a remedy."""
    (tmp_path / "file").touch(mode=0o600)
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere/x")):
        with pytest.raises(ConfigurationError, match=r"cannot be made: .*; set AASM_HOME to a directory of yours"):
            ensure_directory(str(path), "spool")
    with pytest.raises(ConfigurationError):
        ensure_directory("", "spool")


def test_a_directory_that_is_open_to_others_is_not_used(tmp_path: Path) -> None:
    """An existing directory is checked, not mended: somebody may have put something into it."""
    path = tmp_path / "spool"
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(ConfigurationError, match="can be written by others"):
        ensure_directory(str(path), "spool")
