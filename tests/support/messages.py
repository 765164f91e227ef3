"""The messages that the source code can print, as templates: `…` stands for what is filled in."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = [
    path for folder in ("aasm_py", "agent_assembly", "sitecustomize") for path in sorted((ROOT / folder).rglob("*.py"))
]
RUST = [path for folder in ("gateway", "policy") for path in sorted((ROOT / "native" / folder / "src").rglob("*.rs"))]

# Whoever calls one of these says something to a person.
_RAISED = {
    *("AdapterValidationError", "AgentError", "AssemblyError", "ConfigurationError", "GatewayError", "PolicyError"),
    *("Refusal", "SpoolFull", "UngovernedChildError", "UsageError"),
}
_SAID = {"_at", "_leads_out", "_tell", "_unfit", "_unusable", "local_verdict"}
# Comments, raw strings and characters are read over, since the quotes in them begin no string.
_RUST_STRING = re.compile(r"""//[^\n]*|r\#"(?:.*?)"\#|r"[^"]*"|'(?:\\.[^']*|[^'\\])'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_RUST_SAID = re.compile(r'(?:#\[error\(|Failure::Message\(\s*(?:format!\(\s*)?)"((?:[^"\\]|\\.)*)"', re.DOTALL)
_LITERAL_LEAST = 8


def template(node: ast.expr) -> str | None:
    """The text that `node` makes, with `…` for what is filled in; None when it makes no text."""
    if isinstance(node, ast.Constant):
        return _percents(node.value) if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = template(node.left), template(node.right)
        return "".join(part if part is not None else "…" for part in parts) if any(parts) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return template(node.left)
    return None


def _percents(text: str) -> str:
    return re.sub(r"%[sdr]", "…", text)


def _rust(text: str) -> str:
    joined = (
        re.sub(r"\\\n\s*", "", text).replace('\\"', '"').replace("\\\\", "\\").replace("{{", "{").replace("}}", "}")
    )
    return re.sub(r"\{[^{}]*\}", "…", joined)


def _templates() -> Iterator[str]:
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.expr):
                text = template(node)
                if text is not None:
                    yield text.strip()
    for path in RUST:
        for found in _RUST_STRING.finditer(_without_tests(path)):
            if found[1] is not None:
                yield _rust(found[1]).strip()


def _without_tests(path: Path) -> str:
    return path.read_text().partition("#[cfg(test)]")[0]


def _messages() -> Iterator[tuple[str, str]]:
    for path in PYTHON:
        if "doctor" in path.parts:
            continue  # the doctor's findings carry their remedy beside them
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in _RAISED | _SAID:
                for argument in node.args:
                    text = template(argument)
                    if text and " " in text:
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", text.strip()
    for path in sorted((ROOT / "native" / "gateway" / "src").rglob("*.rs")):
        for found in _RUST_SAID.finditer(_without_tests(path)):
            yield str(path.relative_to(ROOT)), _rust(found[1]).strip()


TEMPLATES = frozenset(text for text in _templates() if len(text.replace("…", "")) >= _LITERAL_LEAST)
MESSAGES = sorted(set(_messages()))


def printed(shown: str, text: str) -> bool:
    """Whether the template `text` prints `shown`, or `shown` is a part of what it prints."""
    whole = ".*".join(re.escape(piece) for piece in text.split("…"))
    if re.fullmatch(whole, shown, re.DOTALL):
        return True
    at = 0
    pieces = [piece for piece in shown.split("…") if piece.strip()]
    for piece in pieces:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return bool(pieces)
