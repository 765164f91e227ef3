"""Keeps secrets out of everything that the doctor shows or writes.

A text goes through two sieves: secrets that are known are taken out wherever they stand and however they are written,
and whatever has the form of a secret is taken out whether it is known or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from aasm_py.doctor.known_secrets import is_distinctive, known_secrets, written_forms
from aasm_py.doctor.look import Look
from aasm_py.doctor.secret_forms import REDACTED, Span, is_ordinary, name_strength, secret_spans

# What is longer is cut: nothing that the doctor shows comes near, and the bundle reads less.
LIMIT = 1 << 20
# So much further is looked, so that what begins before the limit and ends behind it is seen whole.
_BEYOND = 64 << 10
_ELLIPSIS = re.compile(r"…|\.\.\.")
_MOST_CUTS = 1000
# Shorter beginnings of secrets are too often the beginnings of words.
_CUT = 8


class Redactor:
    """Replaces what is secret in a text, whoever put it there. Safe in threads."""

    def __init__(self, look: Look) -> None:
        forms = {form for secret in known_secrets(look) for form in written_forms(secret) if is_distinctive(form)}
        self._forms: Sequence[str] = sorted(forms)

    def text(self, text: str) -> str:
        """Return `text` without secrets; once that is done, doing it again changes nothing."""
        # Of UTF-16 that was taken for something else, letters with zeros between them are left.
        text = text[: LIMIT + _BEYOND].replace("\0", "")
        parts, at = [], 0
        for start, end in _merged([*self._known_spans(text), *self._cut_spans(text), *secret_spans(text)]):
            if start >= LIMIT:
                break
            parts += [text[at:start], REDACTED]
            at = end
        parts.append(text[at:LIMIT])
        if len(text) > LIMIT:
            parts.append(" [cut]")
        return "".join(parts)

    def data(self, data: Any) -> Any:
        """The same for what JSON is made of: each text in it, and each value whose name says that it is secret."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, dict):
            return {self.text(str(name)): self._value(str(name), value) for name, value in data.items()}
        return [self.data(item) for item in data] if isinstance(data, (list, tuple)) else data

    def _value(self, name: str, value: Any) -> Any:
        hidden = name_strength(name) and isinstance(value, str) and value and not is_ordinary(value)
        return REDACTED if hidden else self.data(value)

    def _known_spans(self, text: str) -> Iterator[Span]:
        for form in self._forms:
            at = text.find(form)
            while at >= 0:
                yield at, at + len(form)
                at = text.find(form, at + len(form))

    def _cut_spans(self, text: str) -> Iterator[Span]:
        """What is left of known secrets where somebody cut the text off: before an ellipsis, and at the end."""
        ends = [found.start() for found, _ in zip(_ELLIPSIS.finditer(text), range(_MOST_CUTS), strict=False)]
        for end in (*ends, len(text)):
            for form in self._forms:
                start = text.rfind(form[:_CUT], max(0, end - len(form)), end)
                if start >= 0 and end - start >= _CUT and form.startswith(text[start:end]):
                    yield start, end


def _merged(spans: list[Span]) -> Iterator[Span]:
    """The spans in order; those that overlap as one."""
    start = end = 0
    for begin, stop in sorted(spans):
        if begin < end:
            end = max(end, stop)
            continue
        if end > start:
            yield start, end
        start, end = begin, stop
    if end > start:
        yield start, end
