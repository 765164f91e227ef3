"""`aasm-run`: find or start the gateway, put the bootstrap in front of a program, and become that program.

Imported before the user's program: see the import rules.
"""

from __future__ import annotations

import os
import sys

from aasm_py.host import Host
from aasm_py.options import UsageError, help_text, parse_options
from aasm_py.own_path import leave_python_path
from aasm_py.plan import (
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    EXIT_REFUSED,
    EXIT_USAGE,
    LaunchPlan,
    Refusal,
    gateway_environment,
    plan,
)
from agent_assembly import __version__
from agent_assembly.exceptions import AssemblyError, ConfigurationError, GatewayError, PolicyError
from agent_assembly.launching import announce_run, locate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from aasm_py.options import Options
    from agent_assembly.launching import Gateway

_NO_GATEWAY = "aasm start; or: name one with --gateway-url URL"
_SEE_TARGET = "see whether the program itself can be started, without aasm-run"
_STRICTNESS = ("disabled", "observe", "enforce")


def main() -> int:
    """Run `aasm-run`; return only when the program was not run."""
    opened = _open_closed_streams()
    leave_python_path()
    try:
        return _main(sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - whatever is wrong with us, the program does not run ungoverned
        _say(f"aasm-run: unexpected, please report it: {type(error).__name__}: {' '.join(str(error).split())}\n")
        return EXIT_REFUSED
    finally:
        for descriptor in opened:
            os.close(descriptor)


def explain(words: Sequence[str], as_json: bool = False) -> int:
    """Show what `aasm-run` would do with `words`; return its exit code."""
    try:
        return _run(parse_options(["--explain", *(["--json"] if as_json else []), *words]))
    except UsageError as error:
        return _misused(str(error))


def _main(words: Sequence[str]) -> int:
    try:
        options = parse_options(words)
    except UsageError as error:
        return _misused(str(error))
    if "help" in options.flags:
        return _print(help_text())
    if "version" in options.flags:
        return _print(f"aasm-run {__version__}\n")
    return _run(options)


def _run(options: Options) -> int:
    if not options.command:
        return _misused("no command, for example: aasm-run python agent.py; see: aasm-run --help")
    try:
        return _launch(options)
    except Refusal as refusal:
        _refuse(refusal, options)
        return refusal.code


def _launch(options: Options) -> int:
    if os.name == "nt":
        raise Refusal(
            "aasm-run is not available on Windows in this build",
            check="platform",
            remedy="call init_assembly() in the program",
        )
    chosen = plan(options, os.environ, Host())
    if "explain" not in options.flags:
        execute(chosen, os.environ)
    if "json" in options.flags:
        import json

        return _print(json.dumps(chosen.as_json(), indent=2) + "\n")
    from aasm_py.render import launch_plan

    return _print(launch_plan(chosen))


def execute(chosen: LaunchPlan, environ: Mapping[str, str]) -> NoReturn:
    """Do what the plan says: have a gateway, announce the run, and become the program. Raises Refusal."""
    environment = dict(environ)
    for name, value, _ in chosen.environment:
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    gateway = _gateway(chosen, environ)
    if gateway is not None and not chosen.outer_run:
        _announce(chosen, gateway, environment)
    environment.update(gateway_environment(chosen, gateway))
    for note in chosen.notes:
        _tell(chosen, note)
    _become(chosen, environment)


def _gateway(chosen: LaunchPlan, environ: Mapping[str, str]) -> Gateway | None:
    problem = chosen.gateway_problem
    if chosen.gateway is None and problem is None:
        try:
            gateway = locate(chosen.settings, [], environ=environ)
        except GatewayError as error:
            problem = error
        except ConfigurationError as error:
            raise Refusal(str(error), check="gateway", remedy=_NO_GATEWAY) from None
        else:
            if gateway.started:
                _tell(chosen, f"started the gateway at {gateway.url} ({gateway.probe.policy_source} policy)")
            return gateway
    if problem is not None:
        _without_gateway(chosen, problem)
    return chosen.gateway


def _without_gateway(chosen: LaunchPlan, problem: AssemblyError) -> None:
    if chosen.enforces:
        raise Refusal(str(problem), check="gateway", remedy=_NO_GATEWAY)
    if chosen.policy is not None:
        raise Refusal(
            f"the policy {chosen.policy[0]} cannot be checked: {problem}", check="policy of the run", remedy=_NO_GATEWAY
        )
    mode = chosen.settings.enforcement_mode
    _tell(chosen, f"goes on without a gateway ({problem}), since enforcement_mode is {mode}; calls are not judged")


def _announce(chosen: LaunchPlan, gateway: Gateway, environment: dict[str, str]) -> None:
    settings = chosen.settings
    try:
        answer = announce_run(gateway, settings.home, _run_facts(chosen), settings.api_key)
    except PolicyError as error:
        lines = [_diagnostic(row) for row in error.diagnostics] or [str(error)]
        raise Refusal(
            "the policy of the run is refused:\n" + "\n".join(f"  {line}" for line in lines),
            check="policy of the run",
            remedy="correct the policy at the lines named",
        ) from None
    except GatewayError as error:
        _without_gateway(chosen, error)
        return
    wanted, least = settings.enforcement_mode, answer.get("min_enforcement")
    if wanted in _STRICTNESS and least in _STRICTNESS and _STRICTNESS.index(least) > _STRICTNESS.index(wanted):
        environment["AASM_ENFORCEMENT_MODE"] = least
        _tell(chosen, f"enforcement_mode is {least}, which the gateway demands, not {wanted}")


def _run_facts(chosen: LaunchPlan) -> dict[str, Any]:
    settings = chosen.settings
    try:
        directory = os.getcwd()
    except OSError:
        directory = ""
    facts: dict[str, Any] = {
        "run_id": chosen.run_id,
        "command": [_plain(word) for word in chosen.command],
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "cwd": _plain(directory),
        "children": settings.children,
        "sdk_version": __version__,
    }
    if settings.enforcement_mode is not None:
        facts["enforcement_mode"] = settings.enforcement_mode
    if chosen.policy is not None:
        facts["policy"] = {"name": _plain(chosen.policy[0]), "text": chosen.policy[1]}
    return facts


def _plain(text: str) -> str:
    """`text` as JSON can carry it: what is no UTF-8 is marked."""
    return os.fsencode(text).decode("utf-8", "replace")


def _diagnostic(row: Mapping[str, Any]) -> str:
    place = ":".join(str(row[name]) for name in ("file", "line", "column") if row.get(name))
    suggestion = f" (did you mean `{row['suggestion']}`?)" if row.get("suggestion") else ""
    return f"{place}: {row.get('message', '')}{suggestion}"


def _become(chosen: LaunchPlan, environment: Mapping[str, str]) -> NoReturn:
    path = chosen.target.path
    _restore_signals()
    try:
        os.execve(path, [path, *chosen.command[1:]], environment)  # noqa: S606 - no shell is the point
    except OSError as error:
        code = EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE
        raise Refusal(
            f"{path} cannot be executed: {error.strerror}", check="target", code=code, remedy=_SEE_TARGET
        ) from None
    except ValueError as error:
        raise Refusal(f"{path} cannot be executed: {error}", check="target", remedy=_SEE_TARGET) from None


def _restore_signals() -> None:
    """Give the program the signals that Python ignores for itself, as a shell would."""
    import _signal  # type: ignore[import-not-found]  # the part of `signal` that costs nothing

    for name in ("SIGPIPE", "SIGXFSZ"):
        number = getattr(_signal, name, None)
        if number is not None:
            _signal.signal(number, _signal.SIG_DFL)


def _open_closed_streams() -> list[int]:
    """Hold the numbers of closed standard streams, lest a socket get one of them; exec closes them again."""
    opened = []
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened.append(os.open(os.devnull, os.O_RDWR))
    return opened


def _misused(problem: str) -> int:
    _say(f"aasm-run: {problem}\n")
    return EXIT_USAGE


def _refuse(refusal: Refusal, options: Options) -> None:
    """Say why the program is not run: in one line, and where more than a typing error is behind it, as a table.

    The table is the doctor's, and looks at everything anew: what the launcher met first need not be what is wrong.
    """
    if refusal.code != EXIT_REFUSED:
        _say(f"aasm-run: {refusal}; {refusal.remedy}\n")
        return
    why, remedy = _without_secrets((str(refusal), refusal.remedy), options)
    _say(f"aasm-run: {why}\n")
    from agent_assembly.diagnosis import Finding, plain_table

    lines = why.splitlines()
    # A list has its first entry in the table, so that the row says something by itself.
    found = f"{lines[0]} {lines[1].strip()}" if lines[0].endswith(":") and lines[1:] else lines[0]
    refused = Finding(refusal.check, "fail", found, remedy)
    try:
        from aasm_py.doctor.refusal import show_failing

        show_failing(refused, os.environ, options.command, options.settings)
    except Exception:  # noqa: BLE001 - the doctor's own trouble must not hide the reason
        _say(plain_table([refused]))


def _without_secrets(texts: Sequence[str], options: Options) -> Sequence[str]:
    """`texts` as the doctor would show them: a command, a policy's path or what a gateway answers may hold a secret."""
    try:
        from aasm_py.doctor.look import Look
        from aasm_py.doctor.redaction import Redactor

        redactor = Redactor(Look(os.environ, options.command, options.settings))
        return [redactor.text(text) for text in texts]
    except Exception:  # noqa: BLE001 - the doctor's own trouble must not hide the reason
        return texts


def _tell(chosen: LaunchPlan, text: str) -> None:
    if not chosen.quiet:
        _say(f"aasm-run: {text}\n")


def _print(text: str) -> int:
    from aasm_py import streams

    if sys.stdout is None:
        _say("aasm-run: standard output is closed\n")
        return 1
    streams.prepare()
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except streams.OutputFailed as error:
        code, problem = streams.abandon_output(error)
        if problem:
            _say(f"aasm-run: {problem}\n")
        return code
    return 0


def _say(text: str) -> None:
    try:
        from aasm_py.streams import ascii_only, clean

        plain = ascii_only(os.environ)
        text = "".join(f"{clean(line)}\n" for line in text.splitlines())
    except Exception:  # noqa: BLE001 - whatever is wrong with us, this must still be said
        plain = True
    try:
        os.write(2, text.encode("ascii" if plain else "utf-8", "backslashreplace"))
    except OSError:
        # Nobody listens; the exit code says it too.
        return
