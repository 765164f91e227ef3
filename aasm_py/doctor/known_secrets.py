"""The secrets that a look at a set-up knows, and the ways in which each may be written."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import stat
import urllib.parse
from collections.abc import Iterator, Sequence

from aasm_py.doctor.look import Look
from aasm_py.doctor.secret_forms import is_ordinary, looks_secret, name_strength, secret_spans
from agent_assembly.diagnosis import SETTINGS

SHORTEST = 6
_READ_LIMIT = 64 << 10
_ENTRY = re.compile(r"(?<![\w.-])([A-Za-z_][\w.-]{0,80})[\"']?\s{0,16}[:=]\s{0,16}")


def known_secrets(look: Look) -> frozenset[str]:
    """Every secret that can be known: of settings, variables, command, configuration, and the home's own files.

    Short ones are left out: they would take ordinary words with them, and are only recognised by what stands before
    them.
    """
    return look.once("secrets", lambda: frozenset(secret for secret in _all(look) if is_distinctive(secret)))


def is_distinctive(secret: str) -> bool:
    """Whether `secret` can be taken out of any text without taking ordinary words with it."""
    return len(secret) >= SHORTEST and not secret.isspace() and not is_ordinary(secret)


def written_forms(secret: str) -> Iterator[str]:
    """`secret` as it stands in plain text, URLs, JSON, Python, HTML, shells, and base64."""
    encoded = _bytes(secret)
    yield secret
    for safe in ("", "/"):
        quoted = urllib.parse.quote(encoded, safe)
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
    yield urllib.parse.quote_plus(encoded)
    for unicode in (True, False):
        yield json.dumps(secret, ensure_ascii=unicode)[1:-1]
        yield json.dumps(json.dumps(secret, ensure_ascii=unicode))[3:-3]
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    yield secret.replace("'", "'\"'\"'")
    yield secret.replace("'", "''")
    yield " ".join(secret.split())
    yield base64.b64encode(encoded).decode().rstrip("=")
    yield base64.urlsafe_b64encode(encoded).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Half a character, which YAML lets people write.
        return text.encode("utf-8", "surrogatepass")


def secret_entries(text: str) -> Iterator[tuple[int, int, int]]:
    """The entries of a configuration whose names say that they are secret: line and column of the value, line behind.

    By its lines alone, so also where the file is no YAML: an entry goes on as long as lines stand further right.
    """
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        first = number
        number += 1
        found = next((found for found in _ENTRY.finditer(lines[first]) if name_strength(found[1])), None)
        if found is None:
            continue
        depth = _depth(lines[first])
        while number < len(lines) and (not lines[number].strip() or _depth(lines[number]) > depth):
            number += 1
        yield first, found.end(), number


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def _all(look: Look) -> Iterator[str]:
    for row in SETTINGS:
        value = look.arguments.get(row.name)
        if isinstance(value, str):
            yield from [value] if row.secret else _learnt(value)
        if row.secret and look.environ.get(row.variable):
            yield look.environ[row.variable]
    for name, value in look.environ.items():
        if name_strength(name) and _is_long_enough(value):
            yield value
            yield from (line for line in value.split() if len(line) >= 16)
        yield from _learnt(value)
    yield from _commanded(look.command)
    if look.home is not None:
        for name in ("gateway.secret", "operator.token"):
            yield from (line.strip() for line in read_text(look.path(name)).split("\n"))
        yield from _configured(read_text(look.path("config.yaml")))


def _commanded(command: Sequence[str]) -> Iterator[str]:
    for index, word in enumerate(command):
        name, sign, value = word.partition("=")
        if sign and name_strength(name) == 2:
            yield value
        elif word.startswith("-") and name_strength(word):
            yield from command[index + 1 : index + 2]
        yield from _learnt(word)


def _is_long_enough(value: str) -> bool:
    # Shorter ones, as of AUTH=basic, are words that stand in other places too.
    return len(value) >= 8 or any(letter.isdigit() for letter in value)


def _learnt(text: str) -> Iterator[str]:
    """What has the form of a secret in `text`, without what only belongs to the form."""
    text = text[:_READ_LIMIT]
    for start, end in secret_spans(text):
        found = text[start:end]
        if text[end : end + 1] == "@":
            password = found.partition(":")[2] or (found if looks_secret(found) else "")
            yield from (password, urllib.parse.unquote(password))
            continue
        scheme, blank, credential = found.partition(" ")
        if blank and scheme.isalpha():
            yield credential
        elif _is_long_enough(found):
            yield found
    # Read as leniently as people write: all between scheme and last @, which a strict reader takes for a path.
    for word in text.split():
        before, at, _ = word.rpartition("@")
        password = before.partition("://")[2].partition(":")[2]
        if at and password:
            yield from (password, urllib.parse.unquote(password))


def _configured(text: str) -> Iterator[str]:
    yield from _learnt(text)
    lines = text.split("\n")
    for first, column, behind in secret_entries(text):
        for value in (lines[first][column:], *lines[first + 1 : behind]):
            # With and without a comment, or what else may follow; who is no YAML cannot say where a value ends.
            for part in (value, *re.split(r"\s#|[,}]\s{0,16}|[,}]$", value, maxsplit=8)):
                yield from (part.strip(), part.strip().strip("\"'"))
    yield from _scalars(text)


def _scalars(text: str) -> Iterator[str]:
    """The values with secret names, as YAML reads them, at whatever depth."""
    import yaml

    try:
        waiting = [yaml.compose(text, Loader=yaml.SafeLoader)]
    except (yaml.YAMLError, RecursionError, ValueError):
        return
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                waiting += [name, value]
                if isinstance(name, yaml.ScalarNode) and name_strength(name.value):
                    items = value.value if isinstance(value, yaml.SequenceNode) else [value]
                    texts = [str(item.value) for item in items if isinstance(item, yaml.ScalarNode)]
                    yield from texts
                    yield from (part for text in texts for part in text.split() if _is_long_enough(part))


def read_text(path: str, limit: int = _READ_LIMIT) -> str:
    """The beginning of a regular file, whoever owns it; empty where there is none to read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError):
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.read(descriptor, limit).decode("utf-8", "replace").removeprefix("\ufeff")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
