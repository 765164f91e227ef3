"""The help of `aasm-run`: every option of its parser, grouped by what people want to decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aasm_py.help import STUCK, Section, option_row, page
from aasm_py.streams import terminal_width

if TYPE_CHECKING:
    from aasm_py.options import Flag
    from agent_assembly.launching import Setting

_PURPOSE = """\
Run a program under governance: every tool call of its agents is checked against a policy, recorded, and stopped when
the policy says so. The program needs no change, and its output and exit code stay its own."""
_EXAMPLES = (
    ("aasm-run python agent.py", "under the gateway's policy; starts the gateway when none runs"),
    ("aasm-run --policy policy.yaml python -m my_agent", "under a policy of this run, too"),
    ("aasm-run --enforcement-mode observe python agent.py", "only record what would be denied"),
    ("aasm-run --explain python agent.py", "show what would be done, and run nothing"),
)
_GROUPS = (
    (
        "Enforcement",
        ("policy", "enforcement_mode", "on_deny", "mode", "children", "allow_ungoverned"),
    ),
    ("Gateway", ("gateway_url", "api_key", "gateway_port", "no_start", "home")),
    ("Agent", ("agent_id", "team_id", "parent_agent_id", "delegation_reason", "spawned_by_tool", "depth")),
    ("Limits", ("check_timeout", "bundle_max_age", "max_arguments_bytes", "spool_max_bytes")),
)
_METAVARS = {
    "url": "URL",
    "integer": "N",
    "number": "N",
    "path": "DIR",
    "boolean": "yes|no",
    "identifier": "ID",
    "text": "TEXT",
}
_ENDINGS = {"_bytes": "BYTES", "_timeout": "SECONDS", "_age": "SECONDS", "_key": "KEY"}
_CLOSING = (
    "Options end at the command; what follows it is the command's own. Each option of the first four groups that has a "
    "value, but --policy, can also be set as a variable (--agent-id as AASM_AGENT_ID) and in ~/.aasm/config.yaml "
    "(as agent_id).",
    "Exit codes: the program's own; 2 wrong usage, 78 refused, 126 not executable, 127 not found.",
    STUCK,
)


def help_page(usage: str, flags: Sequence[Flag], settings: Sequence[Setting], short: Mapping[str, str]) -> str:
    """Return the page; options that belong to no group are never lost, but stand with the general ones."""
    rows = {row.name: _setting(row) for row in settings}
    for flag in flags:
        names = [short[flag.option], flag.option] if flag.option in short else [flag.option]
        rows[flag.name] = option_row(names, flag.metavar, flag.help)
    sections = [Section(title, [rows.pop(name) for name in names if name in rows]) for title, names in _GROUPS]
    sections.append(Section("General", [*rows.values()]))
    return page(usage, _PURPOSE, _EXAMPLES, sections, _CLOSING, terminal_width())


def metavar(setting: Setting) -> str:
    """What stands for the value of a setting's option: its choices, or one word for its kind."""
    if setting.choices:
        return "|".join(setting.choices)
    endings = (word for ending, word in _ENDINGS.items() if setting.name.endswith(ending))
    return next(endings, _METAVARS.get(setting.kind, "TEXT"))


def _setting(setting: Setting) -> tuple[str, str]:
    default = setting.default
    shown = "" if default is None else f"{default:g}" if isinstance(default, float) else str(default)
    if isinstance(default, int) and default >= 1 << 20:
        shown += f", {default >> 20} MiB"
    return option_row([setting.option], metavar(setting), setting.help, shown)
