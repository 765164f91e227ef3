"""`config.yaml`: one flat mapping of settings, each value with the line that it stands on."""

from __future__ import annotations

import difflib
import os
import stat
import sys
from typing import Any

import yaml

from agent_assembly.core.home import check_owned, readable_by_others
from agent_assembly.core.settings import BY_NAME
from agent_assembly.exceptions import ConfigurationError

_SIZE_LIMIT = 64 << 10


def read_config_file(path: str, *, warn: bool = True) -> dict[str, tuple[Any, str]]:
    """Return `{name: (value, "path:line")}`; raise ConfigurationError with path, line and column for what is wrong.

    Refuses a file that others can write, anything but a flat mapping of known settings, and a name given twice. To
    `warn` is to say on standard error that others can read it.
    """
    status = check_owned(path, "configuration")
    if status is None:
        return {}
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"configuration {path} is not a file; remove it, or set AASM_HOME elsewhere")
    if status.st_size > _SIZE_LIMIT:
        raise ConfigurationError(f"configuration {path} is larger than {_SIZE_LIMIT} bytes")
    if warn and readable_by_others(status):
        _warn(f"agent-assembly: configuration {path} can be read by others; type: chmod 0600 {path}")
    try:
        with open(path, "rb") as file:
            data = file.read(_SIZE_LIMIT + 1)
    except OSError as error:
        raise ConfigurationError(f"configuration {path} cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        raise ConfigurationError(f"{_place(path, before)}: not UTF-8; save the file as UTF-8") from None
    return _entries(text, path)


def _place(path: str, before: str) -> str:
    """Line and column behind the text `before`."""
    return f"{path}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def _entries(text: str, path: str) -> dict[str, tuple[Any, str]]:
    try:
        # The node tree, not the values: it alone knows lines, and the duplicates that a mapping would swallow.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise ConfigurationError(f"{place}: {error.problem or 'not YAML'}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigurationError(
            f"{_place(path, text[: error.position])}: the character U+{error.character:04X} has no place in YAML"
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{path}:1:1: expected `name: value` lines, not nested ones") from None
    if root is None or root.tag == _NULL:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise _at(path, root, "expected `name: value` lines")
    entries: dict[str, tuple[Any, str]] = {}
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _at(path, key, "expected the name of a setting")
        name: str = key.value
        row = BY_NAME.get(name)
        if row is None or row.internal or name == "home":
            raise _at(path, key, _unknown(name))
        if name in entries:
            raise _at(path, key, f"{name} is given twice")
        if not isinstance(value, yaml.ScalarNode):
            raise _at(path, value, f"{name} takes one value")
        if value.tag == _NULL:
            continue
        scalar: Any = value.value
        if value.tag not in _SCALAR_TAGS:
            raise _at(path, value, f"{name} takes plain text, a number or true/false; quote it")
        place = f"{path}:{value.start_mark.line + 1}"
        try:
            row.parse(scalar, place)
        except ConfigurationError as error:
            raise _at(path, value, str(error).replace(f" (from {place})", "")) from None
        entries[name] = (scalar, place)
    return entries


_NULL = "tag:yaml.org,2002:null"
_SCALAR_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool"))


def _unknown(name: str) -> str:
    known = [row.name for row in BY_NAME.values() if not row.internal and row.name != "home"]
    if name == "home":
        return "home cannot be set in the file that it holds; set AASM_HOME"
    near = difflib.get_close_matches(name, known, n=1)
    return f"unknown setting {name!r}" + (f", did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")


def _at(path: str, node: yaml.Node, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}: {problem}")


def _warn(line: str) -> None:
    stream = sys.stderr
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        # Closed, absent, or replaced by something that lives in memory.
        descriptor = None
    try:
        if descriptor is not None:
            # Past the stream's buffer: what stays in it because the descriptor is closed would change the exit code.
            os.write(descriptor, f"{line}\n".encode("utf-8", "replace"))
        elif stream is not None:
            stream.write(f"{line}\n")
    except (OSError, ValueError):
        # The program may have closed its standard error; a warning is not worth its life.
        return
