"""What `aasm-run` is going to do, as one frozen value; `--explain` shows it, `execute` does it.

Pure: everything about the machine comes through `host`. Imported before the user's program: see the import rules.
"""

from __future__ import annotations

import os

from aasm_py.options import Options
from agent_assembly.exceptions import AssemblyError, ConfigurationError
from agent_assembly.launching import NO, SETTINGS, examine, resolve_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from aasm_py.host import Host
    from agent_assembly.launching import Gateway, Settings, Target, Tried

OLDEST = (3, 10)
EXIT_USAGE, EXIT_REFUSED, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND = 2, 78, 126, 127

_STRICTNESS = {"disabled": 0, "observe": 1, "enforce": 2, None: 2, "": 2}
_CHILDREN = {"off": 0, "inherit": 1, "strict": 2, "": 1}
# Of the launcher's own process, or of the operator: never the program's.
_WITHHELD = ("AASM_OPERATOR_TOKEN", "AASM_WATCHED")
_SEE_SETTINGS = "correct it where it is set, which aasm-py doctor shows"
_SHOWN_LIMIT = 80
_BOOTSTRAP_TAIL = os.path.join("aasm_py", "_bootstrap")


class Sdk:
    """Whether a Python can import the SDK: `found` is True, False, or None where that cannot be told from outside."""

    __slots__ = ("found", "version", "where")

    def __init__(self, found: bool | None, where: str, version: tuple[int, int] | None = None) -> None:
        self.found = found
        self.where = where
        self.version = version


class Refusal(Exception):
    """The program is not run; the launcher ends with `code` and says `text`, with the failing checks below it.

    `check` is the row of the doctor's table that the reason belongs to, `remedy` what to type.
    """

    def __init__(self, text: str, *, check: str, code: int = EXIT_REFUSED, remedy: str = "") -> None:
        super().__init__(text)
        self.check = check
        self.code = code
        self.remedy = remedy


class LaunchPlan:
    """What will run, through which interpreter, under which gateway and mode, and what is changed in its environment.

    `gateway` is None where it has yet to be started, or, with `gateway_problem`, where there is none. `environment`
    holds `(name, value, why)`, a value of None taking the variable away. `outer_run` is the run that this one stays in.
    """

    __slots__ = (
        "_frozen",
        "command",
        "environment",
        "gateway",
        "gateway_problem",
        "mode",
        "mode_note",
        "notes",
        "outer_run",
        "policy",
        "quiet",
        "run_id",
        "sdk",
        "settings",
        "target",
        "tried",
        "ungoverned",
    )

    command: tuple[str, ...]
    environment: tuple[tuple[str, str | None, str], ...]
    gateway: Gateway | None
    gateway_problem: AssemblyError | None
    mode: str
    mode_note: str
    notes: tuple[str, ...]
    outer_run: str
    policy: tuple[str, str] | None
    quiet: bool
    run_id: str
    sdk: Sdk | None
    settings: Settings
    target: Target
    tried: tuple[Tried, ...]
    ungoverned: bool

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_frozen", True)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a plan does not change: {name}")

    @property
    def enforces(self) -> bool:
        """Whether the program must not run ungoverned: also where nobody said how hard a denial bites."""
        return self.settings.enforcement_mode not in ("observe", "disabled")

    def rows(self) -> list[tuple[str, str, str]]:
        """What the plan says as `(what, value, where from)`; secrets are masked."""
        target, settings = self.target, self.settings
        rows = [
            ("program", " ".join([target.path, *self.command[1:]]), target.kind),
            ("interpreter", target.interpreter or "not known in advance", self._sdk_text()),
            ("governed", "no, as allowed" if self.ungoverned else target.governed, target.reason),
            ("gateway", self._gateway_text(), self.gateway.source if self.gateway else ""),
            *((f"  tried {what}", result, source) for what, source, result in self.tried),
            ("run", self.outer_run or self.run_id, "the run around this one" if self.outer_run else "new"),
            ("policy of the run", self.policy[0] if self.policy else "none", "--policy" if self.policy else ""),
            ("mode", self.mode, self.mode_note or settings.source("mode")),
        ]
        for row in SETTINGS:
            if not row.internal and row.name not in ("gateway_url", "mode"):
                value = settings[row.name]
                shown = "–" if value is None else "***" if row.secret else str(value)
                rows.append((row.name, shown, _shadowing(settings, row.name)))
        rows += [(name, self._shown(name, value), why) for name, value, why in self.environment]
        rows += [("note", note, "") for note in self.notes]
        return rows

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        target, settings = self.target, self.settings
        return {
            "command": list(self.command),
            "program": target.path,
            "kind": target.kind,
            "interpreter": target.interpreter,
            "sdk": None if self.sdk is None else {"found": self.sdk.found, "where": self.sdk.where},
            "governed": {"answer": NO if self.ungoverned else target.governed, "reason": target.reason},
            "gateway": {
                "url": self.gateway.url if self.gateway else None,
                "source": self.gateway.source if self.gateway else None,
                "would_start": self.gateway is None and self.gateway_problem is None,
                "problem": str(self.gateway_problem) if self.gateway_problem else None,
                "tried": [{"what": what, "from": source, "result": result} for what, source, result in self.tried],
            },
            "run_id": self.outer_run or None,
            "policy": self.policy[0] if self.policy else None,
            "mode": {"value": self.mode, "note": self.mode_note or None},
            "settings": {
                row.name: {
                    "value": "***" if row.secret and settings[row.name] is not None else settings[row.name],
                    "from": settings.source(row.name),
                    "passed_over": list(settings.shadowed(row.name)),
                }
                for row in SETTINGS
                if not row.internal
            },
            "environment": [
                {"name": name, "value": None if value is None else self._shown(name, value), "why": why}
                for name, value, why in self.environment
            ],
            "notes": list(self.notes),
        }

    def _gateway_text(self) -> str:
        if self.gateway is not None:
            return f"{self.gateway.url} (version {self.gateway.probe.version})"
        return str(self.gateway_problem) if self.gateway_problem else "would be started"

    def _sdk_text(self) -> str:
        if self.sdk is None:
            return ""
        known = {True: "holds the SDK", False: "lacks the SDK", None: "the SDK is looked for when it starts"}
        return known[self.sdk.found]

    def _shown(self, name: str, value: str | None) -> str:
        secret = any(row.secret and row.variable == name for row in SETTINGS)
        return "(removed)" if value is None else "***" if secret else value


def _shadowing(settings: Settings, name: str) -> str:
    passed_over = settings.shadowed(name)
    return settings.source(name) + (f" (over {', '.join(passed_over)})" if passed_over else "")


def plan(options: Options, environ: Mapping[str, str], host: Host) -> LaunchPlan:
    """Decide everything that can be decided before anything is done; raise Refusal where the program must not run."""
    try:
        settings = host.settings(options.settings, environ)
        mode, mode_note = resolve_mode(settings.mode)
    except ConfigurationError as error:
        raise Refusal(str(error), check="settings", remedy=_SEE_SETTINGS) from None
    outer_run = _outer_run(options, settings, environ)
    enforces = settings.enforcement_mode not in ("observe", "disabled")
    notes: list[str] = []
    # The target is examined as it will be started: what `env` takes away must be there.
    target = examine(options.command, environ, host)
    ungoverned = _check_target(target, options, enforces, notes)
    sdk = _check_sdk(target, environ, host, enforces, ungoverned, notes)
    tried: list[Tried] = []
    gateway, problem = host.gateway(settings, tried)
    return LaunchPlan(
        command=options.command,
        settings=settings,
        mode=mode,
        mode_note=mode_note or "",
        target=target,
        sdk=sdk,
        ungoverned=ungoverned,
        gateway=gateway,
        gateway_problem=problem,
        tried=tuple(tried),
        outer_run=outer_run,
        run_id=outer_run or host.new_run_id(),
        policy=host.policy(options.policy) if options.policy is not None else None,
        quiet="quiet" in options.flags,
        notes=tuple(notes),
        environment=_environment(settings, environ, host.bootstrap_directory()),
    )


def _outer_run(options: Options, settings: Settings, environ: Mapping[str, str]) -> str:
    """Return the run that this launch stays in; refuse what would lead out of it or loosen it.

    A run inside a run is the same run: what was imposed on the outer one must hold for all that it starts. With a
    policy of its own it becomes a run of its own, which is only stricter; not where it would lose the outer run's.
    """
    outer = environ.get("AASM_RUN_ID", "")
    if not outer:
        return ""
    given = options.settings
    mode = environ.get("AASM_ENFORCEMENT_MODE", "")
    if "enforcement_mode" in given and _STRICTNESS[settings.enforcement_mode] < _STRICTNESS.get(mode, 2):
        raise _leads_out(
            outer, f"--enforcement-mode {settings.enforcement_mode} would be weaker than {mode or 'enforce'}"
        )
    if "children" in given and _CHILDREN[settings.children] < _CHILDREN.get(environ.get("AASM_CHILDREN", ""), 1):
        raise _leads_out(outer, f"--children {settings.children} would be weaker")
    for name in ("gateway_url", "home"):
        variable = environ.get(f"AASM_{name.upper()}")
        if name in given and settings[name] != variable:
            raise _leads_out(outer, f"--{name.replace('_', '-')} would lead to another gateway")
    if "allow_ungoverned" in options.flags and _STRICTNESS.get(mode, 2) == 2:
        raise _leads_out(outer, "--allow-ungoverned would lead out of it")
    if options.policy is None:
        return outer
    own = environ.get("AASM_RUN_POLICY")
    if own:
        raise _leads_out(outer, f"--policy would replace that run's own ({own})")
    return ""


def _leads_out(outer: str, how: str) -> Refusal:
    return Refusal(f"inside {outer}, {how}", check="run", remedy="leave it out, or pass it to the outer aasm-run")


def _check_target(target: Target, options: Options, enforces: bool, notes: list[str]) -> bool:
    """Return whether the program will run ungoverned, as was allowed."""
    if target.kind == "missing":
        raise Refusal(target.reason, check="target", code=target.code, remedy=target.remedy)
    if target.governed != NO:
        return False
    if "allow_ungoverned" not in options.flags and enforces:
        remedy = f"{target.remedy}, or pass --allow-ungoverned" if target.remedy else "pass --allow-ungoverned"
        what = _beginning(options.command)
        raise Refusal(f"{what} cannot be governed: {target.reason}", check="target", remedy=remedy)
    notes.append(f"runs ungoverned: {target.reason}")
    return True


def _beginning(command: Sequence[str]) -> str:
    """So much of `command` as can be shown; only whole words: half a secret is not recognised as one."""
    shown = command[0]
    for word in command[1:]:
        if len(shown) + len(word) >= _SHOWN_LIMIT:
            return f"{shown} ..."
        shown += f" {word}"
    return shown


def _check_sdk(
    target: Target, environ: Mapping[str, str], host: Host, enforces: bool, ungoverned: bool, notes: list[str]
) -> Sdk | None:
    if target.interpreter is None or ungoverned:
        return None
    sdk = host.sdk(target.interpreter, target.flags, environ)
    if sdk.found is False:
        old = sdk.version is not None and sdk.version < OLDEST
        if old:
            problem, remedy = f"{target.interpreter}: {sdk.where}", "use Python 3.10 or later"
        else:
            problem = f"the environment of {target.interpreter} does not hold the SDK"
            from shlex import quote

            remedy = f"type: {quote(target.interpreter)} -m pip install agent-assembly"
        if enforces:
            raise Refusal(problem, check="target sdk", remedy=remedy)
        notes.append(f"runs ungoverned: {problem}; {remedy}")
    return sdk


def _environment(
    settings: Settings, environ: Mapping[str, str], bootstrap: str
) -> tuple[tuple[str, str | None, str], ...]:
    """What is changed in the program's environment before the gateway is known."""
    changes: list[tuple[str, str | None, str]] = []
    changes.append(("PYTHONPATH", python_path(environ.get("PYTHONPATH", ""), bootstrap), "loads the bootstrap"))
    for row in SETTINGS:
        source = settings.source(row.name)
        if row.name == "home":
            if source != "default" and environ.get(row.variable) != settings.home:
                changes.append((row.variable, settings.home, source))
        elif source != "default" and not source.startswith("variable ") and not row.internal:
            value = settings[row.name]
            changes.append((row.variable, str(value).lower() if isinstance(value, bool) else str(value), source))
    changes += [(name, None, "not for programs") for name in _WITHHELD if name in environ]
    return tuple(changes)


def python_path(present: str, bootstrap: str) -> str:
    """`present` with the bootstrap's directory once, in front; an empty one adds no current directory."""
    if not present:
        return bootstrap
    # A bootstrap of another installation would arm the same program twice.
    rest = [entry for entry in present.split(os.pathsep) if entry != bootstrap and not entry.endswith(_BOOTSTRAP_TAIL)]
    return os.pathsep.join([bootstrap, *rest]) if rest else bootstrap


def gateway_environment(plan: LaunchPlan, gateway: Gateway | None) -> dict[str, str]:
    """The variables that tell the program about its run and gateway."""
    changes = {"AASM_RUN_ID": plan.run_id}
    if gateway is not None:
        changes["AASM_GATEWAY_URL"] = gateway.url
        changes["AASM_GATEWAY_SOURCE"] = gateway.source
    if plan.policy is not None:
        changes["AASM_RUN_POLICY"] = plan.policy[0]
    return changes
