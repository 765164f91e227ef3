"""`aasm-py`: what people ask at a terminal. Each command is a few lines over the module that does the work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Optional

import typer

from aasm_py import streams
from aasm_py.commands import PROGRAM, App, Misuse, examples, run
from agent_assembly import AssemblyError, __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aasm_py import audit as audit_log

# Typer reads these annotations at run time, also on Python 3.10, hence Optional in this file.
# ruff: noqa: UP045

SEE, RUN, STUCK = "See what agents do", "Run agents", "Get help"
WHICH = "Which calls"
DECISIONS = ("allow", "deny", "redact", "approve")
STRICTNESS = ("enforce", "observe", "disabled")

app = App(
    name=PROGRAM,
    help="See and steer the governance of agents: who ran, what they called, and what was decided. "
    "Agents are run with aasm-run.",
    epilog=examples(
        ("aasm-py doctor", "find out what does not work, and what to type"),
        ("aasm-run python agent.py", "run an agent under governance"),
        ("aasm-py audit list --decision deny --since 1h", "see what was denied in the last hour"),
        ("aasm-py audit tail", "watch calls as they come"),
    ),
)
audit = App(
    help="The audit log: every tool call, with its verdict and outcome.",
    epilog=examples(
        ("aasm-py audit list --decision deny --since 1h", "what was denied in the last hour"),
        ("aasm-py audit tail --agent support", "what one agent does, as it does it"),
        ("aasm-py audit verify", "whether anybody changed the log"),
    ),
)
gateway = App(
    help="The local gateway: it decides about calls, and keeps the audit log. aasm-run starts it when it is needed.",
    epilog=examples(
        ("aasm-py gateway status", "whether it runs, and under which policy"),
        ("aasm-py gateway start --policy policy.yaml", "start it with a policy of yours"),
    ),
)
app.add_typer(audit, name="audit", rich_help_panel=SEE)

Agent = Annotated[
    Optional[str], typer.Option("--agent", metavar="ID", help="Only calls of this agent.", rich_help_panel=WHICH)
]
Tool = Annotated[
    Optional[str], typer.Option("--tool", metavar="NAME", help="Only calls of this tool.", rich_help_panel=WHICH)
]
Decided = Annotated[
    Optional[str],
    typer.Option(
        "--decision", metavar="|".join(DECISIONS), help="Only calls with this decision.", rich_help_panel=WHICH
    ),
]
Run = Annotated[
    Optional[str], typer.Option("--run", metavar="ID", help="Only calls of this run.", rich_help_panel=WHICH)
]
Since = Annotated[
    Optional[str],
    typer.Option(
        "--since",
        metavar="WHEN",
        help="Only calls since then: 30s, 10m, 2h, 1d or 1w ago, or a time like 2026-01-31T08:00:00Z.",
        rich_help_panel=WHICH,
    ),
]
Limit = Annotated[
    str, typer.Option("--limit", metavar="N", help="At most the latest N; 0 for all.", rich_help_panel=WHICH)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise Misuse("missing command")


def _filters(
    agent: str | None, tool: str | None, decision: str | None, run: str | None, since: str | None
) -> audit_log.Filters:
    from aasm_py.audit import Filters
    from aasm_py.moments import parse_moment

    decided = _choice("--decision", decision, DECISIONS) if decision is not None else None
    try:
        moment = parse_moment(since) if since is not None else None
    except AssemblyError as error:
        raise Misuse(f"--since: {error}") from None
    return Filters(agent, tool, decided, run, moment)


def _choice(option: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        from aasm_py.usage import near

        raise Misuse(f"{option} must be one of: {', '.join(choices)}", near(value, choices))
    return value


def _number(option: str, value: str, least: int, most: int) -> int:
    number = int(value) if value.isascii() and value.isdigit() and len(value) < 20 else -1
    if not least <= number <= most:
        upper = f" to {most}" if most < sys.maxsize else " or more"
        raise Misuse(f"{option} must be a whole number, {least}{upper}, not {value!r}")
    return number


def _print_json(value: Any, *, indent: int | None = 2) -> None:
    import json

    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not unicode, indent=indent), flush=True)


def _warn(text: str) -> None:
    print(f"{PROGRAM}: {' '.join(text.split())}", file=sys.stderr, flush=True)


@audit.command(
    "list",
    epilog=examples(
        ("aasm-py audit list --decision deny --since 1h", "what was denied in the last hour"),
        ("aasm-py audit list --agent support --limit 0", "everything that one agent called"),
        ("aasm-py audit list --run run-0123456789abcdef --json", "one run, for a program"),
    ),
)
def audit_list(
    agent: Agent = None,
    tool: Tool = None,
    decision: Decided = None,
    run: Run = None,
    since: Since = None,
    limit: Limit = "100",
    as_json: Json = False,
) -> None:
    """List the latest calls, oldest first."""
    filters = _filters(agent, tool, decision, run, since)
    most = _number("--limit", limit, 0, sys.maxsize)
    from aasm_py.audit import latest
    from aasm_py.control import connect
    from aasm_py.progress import Waiting

    with Waiting("asking the gateway") as tell, connect() as connection:
        rows = latest(connection, filters, most, tell)
    if as_json:
        _print_json(rows)
        return
    from aasm_py import render

    render.audit_table(rows)


@audit.command("count", epilog=examples(("aasm-py audit count --decision deny --since 1d", "how much was denied")))
def audit_count(
    agent: Agent = None,
    tool: Tool = None,
    decision: Decided = None,
    run: Run = None,
    since: Since = None,
    as_json: Json = False,
) -> None:
    """Count calls."""
    filters = _filters(agent, tool, decision, run, since)
    from aasm_py.audit import count
    from aasm_py.control import connect
    from aasm_py.progress import Waiting

    with Waiting("asking the gateway") as tell, connect() as connection:
        number = count(connection, filters, tell)
    if as_json:
        _print_json({"count": number})
    else:
        print(number)


@audit.command(
    "tail",
    epilog=examples(
        ("aasm-py audit tail", "until Ctrl-C"),
        ("aasm-py audit tail --decision deny --limit 0", "only denials, and only those that are to come"),
        ("aasm-py audit tail --json", "one JSON object a line"),
    ),
)
def audit_tail(
    agent: Agent = None,
    tool: Tool = None,
    decision: Decided = None,
    run: Run = None,
    since: Since = None,
    limit: Annotated[
        str,
        typer.Option("--limit", metavar="N", help="Begin with the latest N; 0 for none.", rich_help_panel=WHICH),
    ] = "10",
    as_json: Json = False,
) -> None:
    """Print calls as they come, until Ctrl-C."""
    filters = _filters(agent, tool, decision, run, since)
    backlog = _number("--limit", limit, 0, sys.maxsize)
    from aasm_py.audit import follow
    from aasm_py.control import connect

    for row in follow(connect, filters, backlog, lambda why: _warn(f"{why}; waiting for it")):
        if as_json:
            _print_json(row, indent=None)
            continue
        from aasm_py import render

        render.audit_line(row)


@audit.command("verify", epilog=examples(("aasm-py audit verify", "exit code 0 when nothing was changed, else 1")))
def audit_verify(as_json: Json = False) -> None:
    """Check the whole log, and name what was changed, is missing, reordered or cut off."""
    _run_program(["audit", "verify", *(["--json"] if as_json else [])], "reading the audit log")


def _run_program(words: Sequence[str], waiting: str) -> None:
    from aasm_py.gateway_program import run_program

    raise typer.Exit(run_program(words, waiting))


def _list(path: str, key: str, columns: Sequence[str], as_json: bool) -> None:
    from aasm_py.control import connect
    from aasm_py.progress import Waiting

    with Waiting("asking the gateway"), connect() as connection:
        rows = connection.get(path)[key]
    if as_json:
        _print_json(rows)
        return
    from aasm_py import render

    render.listing(rows, columns, f"no {key}")


@app.command(rich_help_panel=SEE, epilog=examples(("aasm-py agents", ""), ("aasm-py agents --json", "for programs")))
def agents(as_json: Json = False) -> None:
    """List the agents: each process that registered, whether it still runs, and in which run."""
    columns = ("agent_id", "state", "enforcement_mode", "run_id", "pid", "host", "last_seen")
    _list("/v1/agents", "agents", columns, as_json)


@app.command(rich_help_panel=SEE, epilog=examples(("aasm-py runs", ""), ("aasm-py runs --json", "for programs")))
def runs(as_json: Json = False) -> None:
    """List the runs: what each aasm-run started, and how many processes of it checked in."""
    _list("/v1/runs", "runs", ("run_id", "announced_at", "instances", "policy", "command"), as_json)


@gateway.command(
    "start",
    epilog=examples(
        ("aasm-py gateway start", "with the policies in ~/.aasm/policies"),
        ("aasm-py gateway start --policy policy.yaml", "with a policy of yours"),
        ("aasm-py gateway start --min-enforcement enforce", "so that no agent may merely observe"),
    ),
)
def gateway_start(
    policy: Annotated[
        Optional[str], typer.Option("--policy", metavar="FILE|DIR", help="A policy, or a directory of them.")
    ] = None,
    port: Annotated[
        Optional[str], typer.Option("--port", metavar="N", help="The port to listen on; 0 picks a free one.")
    ] = None,
    least: Annotated[
        Optional[str],
        typer.Option("--min-enforcement", metavar="|".join(STRICTNESS), help="What agents are held to at least."),
    ] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay in the foreground, until Ctrl-C.")] = False,
) -> None:
    """Start the local gateway, or find the one that runs."""
    words: list[str] = []
    if policy is not None:
        words += ["--policy", policy]
    if port is not None:
        words += ["--port", str(_number("--port", port, 0, 65535))]
    if least is not None:
        words += ["--min-enforcement", _choice("--min-enforcement", least, STRICTNESS)]
    if foreground:
        words.append("--foreground")
    from aasm_py.gateway_program import start_words

    _run_program(start_words(words), "" if foreground else "starting the gateway")


@gateway.command("stop", epilog=examples(("aasm-py gateway stop", "")))
def gateway_stop() -> None:
    """Stop the local gateway, once it has finished what it is doing."""
    _run_program(["stop"], "stopping the gateway")


@gateway.command("status", epilog=examples(("aasm-py gateway status", ""), ("aasm-py gateway status --json", "")))
def gateway_status(as_json: Json = False) -> None:
    """Say whether the local gateway runs, where, and under which policy; exit code 3 when it does not."""
    _run_program(["status", *(["--json"] if as_json else [])], "asking the gateway")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[OPTIONS] COMMAND [ARGS]...",
    rich_help_panel=RUN,
    epilog=examples(
        ("aasm-py explain python agent.py", "which Python, gateway, mode and variables it would get"),
        ("aasm-py explain --policy policy.yaml python agent.py", "with options of aasm-run"),
    ),
)
def explain(context: typer.Context, as_json: Json = False) -> None:
    """Show what aasm-run would do with a command, and run nothing.

    All options of aasm-run can be given; see aasm-run --help.
    """
    from aasm_py.run import explain as explain_launch

    raise typer.Exit(explain_launch(context.args, as_json=as_json))


# After `explain`, so that the groups of the help come in the order in which people need them.
app.add_typer(gateway, name="gateway", rich_help_panel=RUN)


@app.command(
    context_settings={"allow_extra_args": True, "allow_interspersed_args": False},
    options_metavar="[OPTIONS] [-- COMMAND [ARGS]...]",
    rich_help_panel=STUCK,
    epilog=examples(
        ("aasm-py doctor", "look at everything"),
        ("aasm-py doctor -- python agent.py", "also at a program and its Python, without running it"),
        ("aasm-py doctor --fix", "repair first what can safely be repaired"),
        ("aasm-py doctor --report bundle.zip", "collect what a bug report needs, without secrets"),
    ),
)
def doctor(
    context: typer.Context,
    as_json: Json = False,
    fix: Annotated[bool, typer.Option("--fix", help="Repair first what can safely be repaired.")] = False,
    report: Annotated[
        Optional[str], typer.Option("--report", metavar="FILE", help="Write a support bundle (.zip or .tar.gz).")
    ] = None,
) -> None:
    """Say in one table what works, what does not, and what to type; with -- COMMAND also for that program."""
    from aasm_py.doctor.command import diagnose

    raise typer.Exit(diagnose(context.args, json_wanted=as_json, fix=fix, report=report))


@app.command(
    rich_help_panel=STUCK,
    epilog=examples(
        ("aasm-py completions", "which line to put where, for your shell"),
        ('eval "$(aasm-py completions bash)"', "have TAB complete in this bash"),
    ),
)
def completions(
    shell: Annotated[
        Optional[str], typer.Argument(metavar="bash|zsh|fish", help="Print what this shell has to read.")
    ] = None,
) -> None:
    """Let TAB complete aasm, aasm-py and aasm-run in your shell."""
    from aasm_py.completions import SHELLS, instructions, script

    if shell is None:
        print(instructions(os.environ.get("SHELL", "")), end="")
    else:
        print(script(_choice("the shell", shell, SHELLS)), end="")


def main() -> None:
    """Run `aasm-py`: exit code 0, 1 for an error (one line on standard error), 2 for wrong usage, 130 after Ctrl-C.

    141 when the reader of standard output went away.
    """
    sys.exit(_guarded(lambda: run(app, sys.argv[1:])))


def _guarded(command: Callable[[], int]) -> int:
    """Run `command`; whatever is raised becomes an exit code and at most one line."""
    streams.prepare()
    try:
        code = command()
        sys.stdout.flush()
    except Misuse as misuse:
        _warn(str(misuse))
        return 2
    except AssemblyError as error:
        _warn(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except streams.OutputFailed as error:
        code, problem = streams.abandon_output(error)
        if problem:
            _warn(problem)
        return code
    except Exception as error:  # noqa: BLE001 - people get one line
        return _unexpected(error)
    return code


def _unexpected(error: Exception) -> int:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace is not None else ""
    _warn(f"unexpected, please report it: {type(error).__name__}: {error}{place}")
    return 1
