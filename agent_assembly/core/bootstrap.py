"""What `sitecustomize` arms in a program that `aasm-run` started: a watch on the imports of governed frameworks.

Everything heavy waits for the first of them. Imported before the user's program: see the import rules.
"""

from __future__ import annotations

import os
import sys

from agent_assembly.adapters.hooks import set_error_handler, watch
from agent_assembly.adapters.table import ADAPTERS, ENTRY_POINT_GROUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping
    from types import ModuleType

EXIT_REFUSED = 78
# Names the packages that are governed, for children that lack the SDK and so cannot look into its table. Its presence
# says that a process above is governed.
WATCHED_VARIABLE = "AASM_WATCHED"

_armed = False
# The variables with which the program was started: what it does to its environment later is no way out of the run.
_environment: dict[str, str] = {}


def arm(environ: MutableMapping[str, str], directory: str) -> None:
    """Watch for the governed frameworks; `directory` is the bootstrap's own on PYTHONPATH. Idempotent.

    A framework that cannot be governed later ends the process with 78, unless the run merely observes.
    """
    global _armed
    if _armed:
        return
    _environment.update(environ)
    set_error_handler(_hook_failed)
    for row in ADAPTERS:
        for trigger in row.triggers:
            watch(trigger, _framework_imported)
    # A program that calls init_assembly() before any framework is imported takes the launcher's context over.
    watch("agent_assembly.core.assembly", _assembly_imported)
    _armed = True
    _treat_children(environ, directory)
    if third_party_adapters(sys.path):
        # What they wait for only their code knows: it has to be loaded now.
        _activate()


def is_armed() -> bool:
    """Whether the bootstrap runs in this process."""
    return _armed


def _treat_children(environ: MutableMapping[str, str], directory: str) -> None:
    children = environ.get("AASM_CHILDREN") or "inherit"
    if children == "off":
        _leave_children_alone(environ, directory)
        return
    environ[WATCHED_VARIABLE] = os.pathsep.join(sorted({row.package for row in ADAPTERS}))
    if children == "strict":
        from agent_assembly.core.children import refuse_ungoverned_children

        refuse_ungoverned_children(environ, directory)


def _leave_children_alone(environ: MutableMapping[str, str], directory: str) -> None:
    rest = [part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part != directory]
    environ["PYTHONPATH"] = os.pathsep.join(rest)
    if not any(rest):
        del environ["PYTHONPATH"]
    for name in ("AASM_RUN_ID", "AASM_RUN_POLICY", "AASM_GATEWAY_SOURCE", WATCHED_VARIABLE):
        environ.pop(name, None)
    if _environment.get("AASM_GATEWAY_SOURCE", "").startswith("local gateway"):
        environ.pop("AASM_GATEWAY_URL", None)


def _framework_imported(_: ModuleType) -> None:
    _activate()


def _assembly_imported(module: ModuleType) -> None:
    module.expect_activation(_environment)


def _activate() -> None:
    from agent_assembly.core.late_imports import isolated

    with isolated():
        from agent_assembly.core.assembly import activate

        activate(_environment)


def _hook_failed(error: Exception, name: str) -> None:
    if enforces(_environment):
        refuse(name, error)
    _say(f"aasm-run: the calls of {name.partition('.')[0]} are not governed: {type(error).__name__}: {error}\n")


def enforces(environ: Mapping[str, str]) -> bool:
    """Whether what cannot be governed must not run: also where nobody said how hard a denial bites."""
    return environ.get("AASM_ENFORCEMENT_MODE") not in ("observe", "disabled")


def refuse(name: str, error: BaseException) -> None:
    """End the process with 78, as the import of `name` cannot be governed; nothing that the program wrote is lost."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    package = name.partition(".")[0]
    text = f"aasm-run: the calls of {package} cannot be governed; the program is ended (exit code {EXIT_REFUSED})\n"
    try:
        text += _table(name, error)
    except Exception as further:  # noqa: BLE001 - whatever is wrong with the table, the program does not go on
        text += f"  {error!r}; {further!r}\n"
    _say(text)
    os._exit(EXIT_REFUSED)


def _table(name: str, error: BaseException) -> str:
    """The doctor's table with the one row that fails: the adapter's where it is at fault, else that of the start."""
    from agent_assembly.core.findings import Finding, plain_table
    from agent_assembly.exceptions import AdapterValidationError, AssemblyError

    said = str(error) if isinstance(error, AssemblyError) else f"{type(error).__name__}: {error}"
    python = sys.executable or "python"
    version = sys.version.split()[0]
    found = f"{said} ({python}, Python {version}, {_environment.get('AASM_RUN_ID', '')})"
    row = next((each for each in ADAPTERS if name in each.triggers), None)
    observing = "let it run ungoverned: aasm-run --enforcement-mode observe ..."
    if row is not None and isinstance(error, AdapterValidationError):
        install = f"{_quoted(python)} -m pip install '{row.distribution}{row.versions[0]}'"
        return plain_table([Finding(f"adapter {row.key}", "fail", found, f"{install}; or: {observing}")])
    ask = f"aasm-py doctor -- {_quoted(python)}"
    return plain_table([Finding("initialization", "fail", found, f"{ask}; or: {observing}")])


def _quoted(path: str) -> str:
    plain = all(letter.isalnum() or letter in "/._-+" for letter in path)
    return path if plain else "'" + path.replace("'", "'\\''") + "'"


def _say(text: str) -> None:
    # Not where the program has closed its standard error: the number may be a file of its own by now.
    if sys.__stderr__ is not None and not sys.__stderr__.closed:
        try:
            os.write(sys.__stderr__.fileno(), text.encode("utf-8", "replace"))
        except (OSError, ValueError):
            pass


def third_party_adapters(path: list[str]) -> list[str]:
    """The entry points of the adapters' group in the installed distributions, found without `importlib.metadata`."""
    header = f"[{ENTRY_POINT_GROUP}]"
    found: list[str] = []
    for text in _entry_point_files(path):
        if header in text:
            section = text.partition(header)[2].split("\n[", 1)[0]
            found += [line.strip() for line in section.splitlines() if "=" in line]
    return found


def _entry_point_files(path: list[str]) -> Iterator[str]:
    for directory in path:
        if not directory.endswith(("site-packages", "dist-packages")):
            continue
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(f"{directory}/{name}/entry_points.txt", encoding="utf-8", errors="replace") as file:
                        yield file.read()
                except OSError:
                    continue
