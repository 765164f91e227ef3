"""Whether the Python that is to be started holds the SDK, as far as its environment on the disk tells.

Nothing here starts a process. Imported before the user's program: see the import rules.
"""

from __future__ import annotations

import os

from aasm_py.plan import OLDEST, Sdk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HARMLESS_PATH_FILES = ("distutils-precedence.pth", "_virtualenv.pth", "a1_coverage.pth")


def look_for_sdk(interpreter: str, flags: Sequence[str], environ: Mapping[str, str]) -> Sdk:
    """Look for the SDK where `interpreter` would: on PYTHONPATH, in its environment, in the user's site."""
    for directory in environ.get("PYTHONPATH", "").split(os.pathsep):
        if directory and os.path.isfile(os.path.join(directory, "agent_assembly", "__init__.py")):
            return Sdk(True, directory)
    directories, version = _site_directories(interpreter, flags, environ)
    if version is not None and version < OLDEST:
        return Sdk(False, f"Python {version[0]}.{version[1]} is older than 3.10", version)
    present = [directory for directory in directories if os.path.isdir(directory)]
    for directory in present:
        if os.path.isfile(os.path.join(directory, "agent_assembly", "__init__.py")):
            return Sdk(True, directory, version)
    if not present or version is None:
        return Sdk(None, "its environment cannot be seen from outside", version)
    if any(_extends_path(directory) for directory in present):
        return Sdk(None, f"path files in {present[0]} may add it", version)
    return Sdk(False, present[0], version)


def _extends_path(directory: str) -> bool:
    """Whether path files add directories, as editable installations do, that cannot be known without running them."""
    try:
        names = os.listdir(directory)
    except OSError:
        return False
    return any(name.endswith(".pth") and name not in _HARMLESS_PATH_FILES for name in names)


def _site_directories(
    interpreter: str, flags: Sequence[str], environ: Mapping[str, str]
) -> tuple[list[str], tuple[int, int] | None]:
    """The directories that `interpreter` imports installed packages from, and its version where it can be seen."""
    path = os.path.abspath(interpreter)
    base = os.path.dirname(os.path.dirname(os.path.realpath(path)))
    settings, prefix = _virtual_environment(path)
    version = _version(settings.get("version") or settings.get("version_info") or "")
    if version is None:
        version = _version(os.path.basename(os.path.realpath(path)).removeprefix("python"))
    if version is None:
        version = _only_version(prefix or base)
    if version is None:
        return [], None
    number = f"python{version[0]}.{version[1]}"
    prefixes = [prefix] if prefix else [base]
    shared = not prefix or settings.get("include-system-site-packages", "").lower() == "true"
    if prefix and shared:
        prefixes.append(os.path.dirname(settings.get("home", "")) or base)
    directories = [
        os.path.join(root, library, number, "site-packages") for root in prefixes for library in ("lib", "lib64")
    ]
    if shared:
        # Debian's own Python looks here.
        directories += [f"/usr/local/lib/{number}/dist-packages", "/usr/lib/python3/dist-packages"]
        if not environ.get("PYTHONNOUSERSITE") and not any("s" in flag for flag in flags if flag[:2] != "--"):
            user = environ.get("PYTHONUSERBASE") or os.path.join(os.path.expanduser("~"), ".local")
            directories.append(os.path.join(user, "lib", number, "site-packages"))
    return directories, version


def _virtual_environment(path: str) -> tuple[dict[str, str], str]:
    """The settings of the virtual environment that the program at `path` belongs to, and its prefix; else empty."""
    directory = os.path.dirname(path)
    for prefix in (directory, os.path.dirname(directory)):
        try:
            with open(os.path.join(prefix, "pyvenv.cfg"), encoding="utf-8", errors="replace") as file:
                lines = file.read(16384).splitlines()
        except OSError:
            continue
        settings = {}
        for line in lines:
            name, _, value = line.partition("=")
            settings[name.strip().lower()] = value.strip()
        return settings, prefix
    return {}, ""


def _version(text: str) -> tuple[int, int] | None:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0].rstrip("td")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def _only_version(prefix: str) -> tuple[int, int] | None:
    try:
        names = os.listdir(os.path.join(prefix, "lib"))
    except OSError:
        return None
    found = {_version(name.removeprefix("python")) for name in names if name.startswith("python")} - {None}
    return found.pop() if len(found) == 1 else None
