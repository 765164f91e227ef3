"""`aasm-py`: what people ask at a terminal. Each command is a few lines over the module that does the work."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, Optional

import typer

from aasm_py import audit as audit_log
from aasm_py import control, gateway_program
from aasm_py.moments import parse_moment
from agent_assembly import AssemblyError, __version__

# Typer reads these annotations at run time, also on Python 3.10, hence Optional in this file.
# ruff: noqa: UP045

app = typer.Typer(
    name="aasm-py",
    help="See and steer the governance of agents: who ran, what they called, and what was decided.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
audit = typer.Typer(help="The audit log: every tool call, with its verdict and outcome.", no_args_is_help=True)
gateway = typer.Typer(help="The local gateway.", no_args_is_help=True)
app.add_typer(audit, name="audit")
app.add_typer(gateway, name="gateway")


class Decision(str, Enum):
    """What a policy can decide."""

    allow = "allow"
    deny = "deny"
    redact = "redact"
    approve = "approve"


Agent = Annotated[Optional[str], typer.Option("--agent", metavar="ID", help="Only calls of this agent.")]
Tool = Annotated[Optional[str], typer.Option("--tool", metavar="NAME", help="Only calls of this tool.")]
Decided = Annotated[Optional[Decision], typer.Option("--decision", help="Only calls with this decision.")]
Run = Annotated[Optional[str], typer.Option("--run", metavar="ID", help="Only calls of this run.")]
Since = Annotated[
    Optional[str], typer.Option("--since", metavar="WHEN", help="Only calls since: 10m, 2h, 1d ago, or RFC 3339.")
]
Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="At most the latest N; 0 for all.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(f"aasm-py {__version__}")
        raise typer.Exit


def _filters(
    agent: str | None, tool: str | None, decision: Decision | None, run: str | None, since: str | None
) -> audit_log.Filters:
    return audit_log.Filters(
        agent, tool, decision.value if decision else None, run, parse_moment(since) if since else None
    )


def _print_json(value: Any, *, indent: int | None = 2) -> None:
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not unicode, indent=indent), flush=True)


def _warn(text: str) -> None:
    print(f"aasm-py: {text}", file=sys.stderr, flush=True)


@audit.command("list")
def audit_list(
    agent: Agent = None,
    tool: Tool = None,
    decision: Decided = None,
    run: Run = None,
    since: Since = None,
    limit: Limit = 100,
    as_json: Json = False,
) -> None:
    """List the latest calls, oldest first."""
    filters = _filters(agent, tool, decision, run, since)
    with control.connect() as connection:
        rows = audit_log.latest(connection, filters, limit)
    if as_json:
        _print_json(rows)
        return
    from aasm_py import render

    render.audit_table(rows)


@audit.command("count")
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
    with control.connect() as connection:
        number = audit_log.count(connection, filters)
    if as_json:
        _print_json({"count": number})
    else:
        print(number)


@audit.command("tail")
def audit_tail(
    agent: Agent = None,
    tool: Tool = None,
    decision: Decided = None,
    run: Run = None,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", min=0, metavar="N", help="Begin with the latest N.")] = 10,
    as_json: Json = False,
) -> None:
    """Print calls as they come, until Ctrl-C. With --json, one object a line."""
    filters = _filters(agent, tool, decision, run, since)
    for row in audit_log.follow(control.connect, filters, limit, lambda why: _warn(f"{why}; waiting for it")):
        if as_json:
            _print_json(row, indent=None)
            continue
        from aasm_py import render

        render.audit_line(row)


@audit.command("verify")
def audit_verify(as_json: Json = False) -> None:
    """Check the log's chain: names changed, missing and reordered records, and a cut tail."""
    raise typer.Exit(gateway_program.run_program(["audit", "verify", *(["--json"] if as_json else [])]))


def _list(path: str, key: str, columns: Sequence[str], as_json: bool) -> None:
    with control.connect() as connection:
        rows = connection.get(path)[key]
    if as_json:
        _print_json(rows)
        return
    from aasm_py import render

    render.listing(rows, columns, f"no {key}")


@app.command()
def agents(as_json: Json = False) -> None:
    """List the agents: each process that registered, whether it still runs, and in which run."""
    columns = ("agent_id", "state", "enforcement_mode", "run_id", "pid", "host", "last_seen")
    _list("/v1/agents", "agents", columns, as_json)


@app.command()
def runs(as_json: Json = False) -> None:
    """List the runs: what each aasm-run started, and how many processes of it checked in."""
    _list("/v1/runs", "runs", ("run_id", "announced_at", "instances", "policy", "command"), as_json)


_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@gateway.command("start", context_settings=_PASSED_ON)
def gateway_start(context: typer.Context) -> None:
    """Start the local gateway; further options go to `aasm start` (--policy FILE, --port N, --foreground)."""
    raise typer.Exit(gateway_program.run_program(gateway_program.start_words(context.args)))


@gateway.command("stop")
def gateway_stop() -> None:
    """Stop the local gateway, once it has finished what it is doing."""
    raise typer.Exit(gateway_program.run_program(["stop"]))


@gateway.command("status")
def gateway_status(as_json: Json = False) -> None:
    """Say whether the local gateway runs, where, and under which policy; exit code 3 when it does not."""
    raise typer.Exit(gateway_program.run_program(["status", *(["--json"] if as_json else [])]))


@app.command(context_settings={**_PASSED_ON, "allow_interspersed_args": False})
def explain(context: typer.Context, as_json: Json = False) -> None:
    """Show what `aasm-run` would do with the command that follows, and run nothing."""
    from aasm_py.run import explain as explain_launch

    raise typer.Exit(explain_launch(context.args, as_json=as_json))


def main() -> None:
    """Run `aasm-py`: exit code 0, 1 for an error (one line on standard error), 2 for wrong usage, 130 after Ctrl-C."""
    try:
        app(prog_name="aasm-py")
    except AssemblyError as error:
        _warn(" ".join(str(error).split("\n")))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
