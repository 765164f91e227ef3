"""Whether a Python holds the SDK, seen from outside: environments as they lie on the disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.interpreters import environment, too_old

from aasm_py.preflight import look_for_sdk

VERSION = sys.version_info[:2]
NUMBER = f"python{VERSION[0]}.{VERSION[1]}"


def make_environment(root: Path, *, config: str = "home = /usr/bin\nversion = {0}.{1}.0\n") -> tuple[Path, Path]:
    """Return the Python and the site directory of an environment that holds nothing."""
    site = root / "lib" / NUMBER / "site-packages"
    site.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "pyvenv.cfg").write_text(config.format(*VERSION))
    python = root / "bin" / "python"
    python.symlink_to(sys.executable)
    return python, site


def install(site: Path) -> None:
    (site / "agent_assembly").mkdir(parents=True)
    (site / "agent_assembly" / "__init__.py").touch()


@pytest.mark.parametrize("with_sdk", [True, False])
def test_real_environments(with_sdk: bool) -> None:
    """As Python's own tool makes them."""
    python = environment(VERSION, with_sdk=with_sdk)
    found = look_for_sdk(str(python), (), {})
    assert (found.found, found.version) == (with_sdk, VERSION)


def test_an_environment_without_it_is_known(tmp_path: Path) -> None:
    """Its site directory is there, and does not hold the SDK."""
    python, site = make_environment(tmp_path)
    assert look_for_sdk(str(python), (), {}).found is False
    install(site)
    assert look_for_sdk(str(python), (), {}).found is True


def test_it_may_come_through_the_module_path(tmp_path: Path) -> None:
    """PYTHONPATH counts, as it will for the program."""
    python, _ = make_environment(tmp_path / "env")
    install(tmp_path / "lib")
    assert look_for_sdk(str(python), (), {"PYTHONPATH": f"/nowhere{os.pathsep}{tmp_path / 'lib'}"}).found is True


def test_path_files_leave_it_open(tmp_path: Path) -> None:
    """What an editable installation adds cannot be known from outside: the bootstrap will tell."""
    python, site = make_environment(tmp_path)
    (site / "distutils-precedence.pth").touch()
    assert look_for_sdk(str(python), (), {}).found is False
    (site / "__editable__.something.pth").touch()
    assert look_for_sdk(str(python), (), {}).found is None


def test_what_cannot_be_seen_is_left_open(tmp_path: Path) -> None:
    """A Python whose directories are nowhere, or whose version does not show."""
    python = tmp_path / "python"
    python.write_bytes(b"\x7fELF")
    assert look_for_sdk(str(python), (), {}).found is None


def test_a_shared_environment_looks_into_the_users_site(tmp_path: Path) -> None:
    """With system packages the user's own count, unless they are turned off."""
    config = "home = /nowhere/bin\ninclude-system-site-packages = true\nversion_info = {0}.{1}.0\n"
    python, _ = make_environment(tmp_path / "env", config=config)
    install(tmp_path / "user" / "lib" / NUMBER / "site-packages")
    environ = {"PYTHONUSERBASE": str(tmp_path / "user")}
    assert look_for_sdk(str(python), (), environ).found is True
    assert look_for_sdk(str(python), ("-s",), environ).found is not True
    assert look_for_sdk(str(python), (), {**environ, "PYTHONNOUSERSITE": "1"}).found is not True


@pytest.mark.parametrize("version", sorted(too_old())[-1:], ids=str)
def test_an_old_python_is_known_by_its_directories(version: tuple[int, int]) -> None:
    """There the SDK could not be imported even if it were installed."""
    python = too_old()[version]
    found = look_for_sdk(str(python), (), {})
    assert found.found is False
    assert "older than 3.10" in found.where
