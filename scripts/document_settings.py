"""Write `docs/settings.md` from the table of settings: `.venv/bin/python scripts/document_settings.py`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_assembly import Setting

_HEAD = """\
# Settings

A setting has one name everywhere: as the option of `aasm-run`, as the variable, as a line of `$AASM_HOME/config.yaml`
(all but `home`), and as the argument of `init_assembly()` where that takes it. The first of these that has a value
wins: argument or option, variable, file, default. `aasm-run --explain` shows where each value of a run came from.

| setting | option | variable | values | default | what it is |
|---|---|---|---|---|---|
"""


def settings_page(settings: Iterable[Setting]) -> str:
    """Return the page; what the launcher alone sets is left out."""
    return _HEAD + "".join(_row(setting) for setting in settings if not setting.internal)


def _row(setting: Setting) -> str:
    values = ", ".join(f"`{choice}`" for choice in setting.choices) or _range(setting)
    default = "–" if setting.default is None else f"`{str(setting.default).lower()}`"
    option = "`--no-start`" if setting.name == "auto_start" else f"`{setting.option}`"
    return f"| `{setting.name}` | {option} | `{setting.variable}` | {values} | {default} | {setting.help} |\n"


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

    page = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
    page.write_text(settings_page(SETTINGS))
    print(f"wrote {page.name}")
