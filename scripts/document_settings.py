"""Write the table of settings into `docs/configuration.md`: `.venv/bin/python scripts/document_settings.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_assembly import Setting

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
BEGIN = "<!-- settings: begin, written by scripts/document_settings.py -->\n"
END = "<!-- settings: end -->\n"
_HEAD = """\
| setting | option | variable | values | default | what it is |
|---|---|---|---|---|---|
"""


def page_with(page: str, settings: Iterable[Setting]) -> str:
    """Return `page` with the table of `settings` between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the mark {(BEGIN if not begin else END).strip()}")
    return before + begin + settings_table(settings) + end + after


def settings_table(settings: Iterable[Setting]) -> str:
    """Return one row for each setting; what the launcher alone sets is left out."""
    return _HEAD + "".join(_row(setting) for setting in settings if not setting.internal)


def _row(setting: Setting) -> str:
    values = ", ".join(f"`{choice}`" for choice in setting.choices) or _range(setting)
    default = "–" if setting.default is None else f"`{str(setting.default).lower()}`"
    return f"| `{setting.name}` | `{setting.option}` | `{setting.variable}` | {values} | {default} | {setting.help} |\n"


def _range(setting: Setting) -> str:
    if setting.kind not in ("integer", "number"):
        return {"boolean": "`true`, `false`"}.get(setting.kind, setting.kind)
    if setting.maximum is None:
        return f"{setting.kind} from {setting.minimum}" if setting.minimum is not None else setting.kind
    if setting.minimum == setting.maximum:
        return f"`{setting.minimum}`"
    return f"{setting.kind}, {setting.minimum} to {setting.maximum}"


if __name__ == "__main__":
    from agent_assembly import SETTINGS

    PAGE.write_text(page_with(PAGE.read_text(), SETTINGS))
    print(f"wrote the settings into {PAGE.name}")
