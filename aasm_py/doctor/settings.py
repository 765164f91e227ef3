"""The rows about settings: where each value came from, what it shadows, and what cannot be used."""

from __future__ import annotations

import difflib
import re
import sys
from typing import Any, NamedTuple

from aasm_py.doctor import config_file
from aasm_py.doctor.config_file import configuration_file, removal, replacement
from aasm_py.doctor.look import Check, Look
from agent_assembly.diagnosis import SETTINGS, Finding, Setting, split_url
from agent_assembly.exceptions import ConfigurationError
from agent_assembly.launching import resolve_mode

_BY_NAME = {setting.name: setting for setting in SETTINGS}
# The settings that have a row of their own, in this file or in that of the home.
_OWN_ROW = (*config_file.WITH_ROW, "home")
# What launcher and gateway tell the programs that they start.
_INTERNAL = ("AASM_RUN_POLICY", "AASM_WATCHED", "AASM_OPERATOR_TOKEN")
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOCAL_URL = "http://127.0.0.1:7391"


class Shadow(NamedTuple):
    """A place that also has a value and loses: what it says, and whether that is another one than the one that wins."""

    source: str
    shown: str
    differs: bool


def gateway_url(look: Look) -> Finding:
    """The row `gateway_url`."""
    row = _row(look, "gateway_url", "not set: the gateway of this home is used, and started when none runs")
    url = look.settings.gateway_url
    if row.status != "ok" or url is None or not look.settings.api_key:
        return row
    secure, host, _, _ = split_url(url)
    if not secure and host not in ("localhost", "[::1]") and not host.startswith("127."):
        found = f"{row.found}: the key is sent to {host} without encryption"
        return Finding(
            row.check, "warn", found, "ask for the https:// address of that gateway and set gateway_url to it"
        )
    return row


def api_key(look: Look) -> Finding:
    """The row `api_key`."""
    row = _row(look, "api_key", "not set; the gateway of this home needs none")
    settings = look.settings
    if row.status == "ok" and settings.api_key and settings.gateway_url is None and "gateway_url" not in look.problems:
        found = f"{row.found}; it is sent nowhere, because gateway_url is not set"
        remedy = f"{_dropped(look, 'api_key')}; or: set gateway_url to the gateway that the key is for"
        return Finding(row.check, "warn", found, remedy)
    return row


def mode(look: Look, platform: str = sys.platform) -> Finding:
    """The row `mode`: also whether the mode that is asked for can be had on `platform`."""
    row = _row(look, "mode", "auto")
    if row.status == "fail":
        return row
    try:
        runs, _ = resolve_mode(look.settings.mode, platform)
    except ConfigurationError as error:
        found = f"{error} ({look.settings.mode}, from {look.settings.source('mode')})"
        return Finding("mode", "fail", found, _set_otherwise(look, _BY_NAME["mode"], "sdk-only", "auto"))
    if runs != look.settings.mode:
        row.found += f"; runs as {runs}"
    return row


def enforcement_mode(look: Look) -> Finding:
    """The row `enforcement_mode`."""
    row = _row(look, "enforcement_mode", "not set: the gateway decides, and enforces when nobody says otherwise")
    if row.status == "ok" and look.settings.enforcement_mode == "disabled":
        found = f"{row.found}: policies are not evaluated, nothing is denied"
        remedy = _set_otherwise(look, _BY_NAME["enforcement_mode"], "enforce", "enforce")
        return Finding(row.check, "warn", found, remedy)
    if row.status == "ok" and look.settings.enforcement_mode == "observe":
        row.found += ": what would be denied is recorded and runs"
    return row


def other_settings(look: Look) -> Finding:
    """The row `settings`: all that have no row of their own, and variables that look like settings and are none."""
    failing, warnings, facts, drop = [], [], [], []
    for setting in SETTINGS:
        if setting.internal or setting.name in _OWN_ROW:
            continue
        if setting.name not in look.problems and config_file.fault_of(look, setting) is not None:
            # The row of the file says it.
            continue
        row = _row(look, setting.name, "")
        if row.status == "fail":
            failing.append(row.found)
        elif row.status == "warn":
            warnings.append(f"{setting.name} {row.found}")
        elif look.settings.is_set(setting.name):
            facts.append(f"{setting.name} {row.found}")
        if row.status != "ok":
            drop.append(_dropped(look, setting.name))
    unknown = {name: _meant(name) for name in sorted(look.environ) if _is_unknown(name)}
    for name, meant in unknown.items():
        warnings.append(f"{name} is no setting" + (f", did you mean {meant}?" if meant else ""))
    remedy = _together([*drop, *(f"unset {name}" for name in unknown if _SHELL_NAME.fullmatch(name))])
    if not failing and len(warnings) == 1 and len(unknown) == 1:
        ((name, meant),) = unknown.items()
        if meant:
            remedy += f'; or: export {meant}="${name}" && unset {name}'
    if failing or warnings:
        said = "; ".join([*failing, *warnings])
        return Finding("settings", "fail" if failing else "warn", said, remedy or "start a shell without them")
    return Finding("settings", "ok", "; ".join(facts) or "all others are as they come")


def _row(look: Look, name: str, unset: str) -> Finding:
    """The row of one setting: what it is, where from, and what that shadows."""
    setting = _BY_NAME[name]
    source = look.settings.source(name)
    problem = look.problems.get(name)
    if problem is not None:
        return _invalid(look, setting, str(problem), source)
    broken = config_file.fault_of(look, setting)
    if broken is not None:
        return _invalid_line(setting, broken)
    if not look.settings.is_set(name):
        empty = (
            f" ({setting.variable} is empty, which is as good as not set)" if setting.variable in look.environ else ""
        )
        # What the file would say is not known then.
        unread = (
            f"; {config_file.NAME} is not counted, since it cannot be used" if config_file.NAME in look.problems else ""
        )
        return Finding(name, "ok", unset + empty + unread)
    found = f"{_shown(setting, look.settings[name])}, from {source}"
    shadows = _shadows(look, setting)
    if not any(shadow.differs for shadow in shadows):
        return Finding(name, "ok", found + "".join(f"; the same in {shadow.source}" for shadow in shadows))
    for shadow in shadows:
        found += f"; {shadow.source} says {shadow.shown}" if shadow.differs else f"; the same in {shadow.source}"
    found += ", and is not used" if len(shadows) == 1 else ", and are not used"
    return Finding(name, "warn", found, _unshadowed(setting, source, shadows))


def _invalid(look: Look, setting: Setting, message: str, source: str) -> Finding:
    given = look.environ.get(setting.variable) if source.startswith("variable ") else look.arguments.get(setting.name)
    found = message
    if setting.choices:
        found += f" ({source} is {_clipped(given)})"
    if source == "argument":
        return Finding(setting.name, "fail", found, f"leave out {setting.option}")
    return Finding(setting.name, "fail", found, _set_otherwise(look, setting, *_near(setting, str(given))))


def _invalid_line(setting: Setting, broken: config_file.Fault) -> Finding:
    found = f"{broken.problem} ({broken.place})"
    remedy = removal(broken.path, broken.line)
    if setting.choices and " must be " in broken.problem:
        near = _near(setting, config_file.written(broken))[0]
        remedy = f"{replacement(broken.path, broken.line, f'{setting.name}: {near}')}; or: {remedy}"
    return Finding(setting.name, "fail", found, remedy)


def _near(setting: Setting, given: str) -> tuple[str, str]:
    """What was probably meant, and what always works; both empty where nothing can be said."""
    if setting.name == "gateway_url":
        for candidate in (given.strip(), f"http://{given.strip()}"):
            try:
                return (str(setting.parse(candidate, "")),) * 2
            except ConfigurationError:
                continue
        return _LOCAL_URL, _LOCAL_URL
    usual = str(setting.default or (setting.choices[0] if setting.choices else ""))
    choices = [choice for choice in setting.choices if setting.name != "mode" or _can_be_had(choice)]
    near = difflib.get_close_matches(given.strip().lower(), choices, n=1)
    return (near[0] if near else usual), usual


def _can_be_had(mode: str) -> bool:
    try:
        resolve_mode(mode)
    except ConfigurationError:
        return False
    return True


def _set_otherwise(look: Look, setting: Setting, wanted: str, usual: str) -> str:
    """Take the value back, or set another one, in the place that it came from."""
    source = look.settings.source(setting.name)
    if source.startswith("variable "):
        export = f"export {setting.variable}={wanted or usual}"
        if not (wanted or usual) or setting.secret:
            return f"unset {setting.variable}"
        # What the variable shadows would come to light.
        lines = [export, f"unset {setting.variable}"] if look.settings.shadowed(setting.name) else None
        return "; or: ".join(lines or [f"unset {setting.variable}", export])
    if source == "argument":
        return f"leave out {setting.option}"
    if source == "default":
        return f"export {setting.variable}={wanted or usual}"
    path, _, line = source.rpartition(":")
    return f"{replacement(path, int(line), f'{setting.name}: {wanted}')}; or: {removal(path, int(line))}"


def _dropped(look: Look, name: str) -> str:
    """Take back what wins, where it comes from."""
    setting, source = _BY_NAME[name], look.settings.source(name)
    if source.startswith("variable "):
        return f"unset {setting.variable}"
    path, _, line = source.rpartition(":")
    if line.isdigit():
        return removal(path, int(line))
    shadowed = look.settings.shadowed(name)
    return f"unset {setting.variable}" if f"variable {setting.variable}" in shadowed else f"leave out {setting.option}"


def _shadows(look: Look, setting: Setting) -> list[Shadow]:
    wins = look.settings[setting.name]
    found = []
    for source in look.settings.shadowed(setting.name):
        given: Any = look.environ.get(setting.variable)
        if not source.startswith("variable "):
            given = config_file.values(look).get(setting.name, (None, ""))[0]
        try:
            value = setting.parse(given, source)
        except ConfigurationError:
            found.append(Shadow(source, "something that cannot be used", True))
            continue
        shown = "another one" if setting.secret else _shown(setting, value)
        found.append(Shadow(source, shown, value != wins))
    return found


def _unshadowed(setting: Setting, source: str, shadows: list[Shadow]) -> str:
    """Make one value of the two: take the variable back, or what it shadows out of the file."""
    lines = []
    if any(place.startswith("variable ") for place in (source, *(row.source for row in shadows if row.differs))):
        lines.append(f"unset {setting.variable}")
    for shadow in shadows:
        path, _, line = shadow.source.rpartition(":")
        if line.isdigit() and shadow.differs:
            lines.append(removal(path, int(line)))
    if source == "argument":
        # What loses goes; an option was given on purpose.
        return " && ".join(lines)
    return "; or: ".join(lines)


def _shown(setting: Setting, value: Any) -> str:
    if setting.secret:
        return f"set ({len(str(value))} characters)"
    return str(value) if setting.kind in ("url", "choice", "identifier") else repr(value)


def _clipped(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…'"


def _is_unknown(name: str) -> bool:
    if not name.upper().startswith("AASM"):
        return False
    return name not in _INTERNAL and all(name != setting.variable for setting in SETTINGS)


def _meant(name: str) -> str:
    known = {setting.variable.replace("_", ""): setting.variable for setting in SETTINGS if not setting.internal}
    plain = name.upper().replace("_", "")
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.8)
    if near:
        return known[near[0]]
    # `AASM_ENFORCEMENT` for `AASM_ENFORCEMENT_MODE`.
    begun = [variable for key, variable in known.items() if key.startswith(plain) and len(plain) > len("AASM")]
    return begun[0] if len(begun) == 1 else ""


def _together(commands: list[str]) -> str:
    """One command line of several; what is unset is unset at once."""
    names = [command.removeprefix("unset ") for command in commands if command.startswith("unset ")]
    others = [command for command in commands if not command.startswith(("unset ", "leave out "))]
    if not names and not others:
        return next(iter(commands), "")
    return " && ".join([*([f"unset {' '.join(names)}"] if names else []), *dict.fromkeys(others)])


CHECKS: tuple[Check, ...] = (
    Check("gateway_url", "settings", gateway_url),
    Check("api_key", "settings", api_key),
    Check("mode", "settings", mode),
    Check("enforcement_mode", "settings", enforcement_mode),
    Check("settings", "settings", other_settings),
    Check("configuration file", "settings", configuration_file),
)
