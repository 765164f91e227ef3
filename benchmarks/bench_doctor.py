"""What `aasm-py doctor` takes: on a set-up where all is well, and on one where everything that can hang does.

`.venv/bin/python benchmarks/bench_doctor.py [--record]`
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from measuring import BIN, CheckFailed, Gateway, Summary, environment, gateway, interleave, ratio, spawn, temporary
from report import Report, run

ROUNDS = 11

BARE, IMPORTS = "bare Python", "`python -c 'import langchain_core.tools.base'`, which one of the checks does"
HEALTHY, WITH_COMMAND = "`aasm-py doctor`, all is well", "`aasm-py doctor -- python agent.py`, all is well"
WORST = "`aasm-py doctor -- python agent.py`, gateway, framework and interpreter hang"


def measure(report: Report) -> None:
    with temporary() as directory, gateway(directory / "home") as well, gateway(directory / "stuck") as stuck:
        python, doctor = BIN / "python", [BIN / "aasm-py", "doctor"]
        environ = environment(well.home)
        agent = directory / "agent.py"
        agent.write_text("")
        broken, command = hanging(directory, stuck)
        expect(doctor, environ, code=0, hung=0)
        expect([*doctor, "--", *command], broken, code=1, hung=2)
        cases = {
            BARE: partial(spawn, [python, "-c", "pass"], environ),
            IMPORTS: partial(spawn, [python, "-c", "import langchain_core.tools.base"], environ),
            HEALTHY: partial(spawn, doctor, environ),
            WITH_COMMAND: partial(spawn, [*doctor, "--", python, agent], environ),
        }
        results = interleave(cases, rounds=ROUNDS)
        wall = {name: [result.wall for result in found] for name, found in results.items()}
        wall[WORST] = [spawn([*doctor, "--", *command], broken, expected=1).wall for _ in range(5)]
    report.bar("doctor on a healthy set-up", Summary.of(wall[HEALTHY]).median / 1000, 1.5, "s")
    report.bar("doctor on the worst broken one, the slowest of five", max(wall[WORST]) / 1000, 5, "s")
    report.table(
        ("process", "wall, ms", "ratio", "n"),
        [(name, Summary.of(found).text(), ratio(found, wall[BARE]), str(len(found))) for name, found in wall.items()],
    )
    report.note(
        "The healthy set-up has a gateway that runs and LangChain and LangGraph installed, which are imported and "
        "armed in a process of their own. In the broken one the gateway accepts connections and never answers, a "
        "framework's import and the program's interpreter never end, and PYTHONPATH has a thousand entries."
    )


def hanging(directory: Path, stuck: Gateway) -> tuple[dict[str, str], Sequence[str | Path]]:
    """Return the variables and the program of a set-up in which everything hangs that is not ours."""
    shadow = directory / "shadow"
    (shadow / "langchain_core").mkdir(parents=True)
    (shadow / "langchain_core" / "__init__.py").write_text("import time\ntime.sleep(60)\n")
    interpreter = directory / "bin" / "python3.11"
    interpreter.parent.mkdir()
    interpreter.write_text("#!/bin/sh\nexec sleep 60\n")
    interpreter.chmod(0o755)
    entries = [str(shadow), *(str(directory / f"entry-{number}") for number in range(1000))]
    stuck.pause()
    return environment(stuck.home, PYTHONPATH=os.pathsep.join(entries)), [interpreter, "agent.py"]


def expect(command: Sequence[str | Path], environ: Mapping[str, str], *, code: int, hung: int) -> None:
    """Raise CheckFailed unless the doctor ends with `code`, having met that many things that hang."""
    words = [str(word) for word in command]
    result = subprocess.run(
        [*words[:2], "--json", *words[2:]], env=dict(environ), capture_output=True, text=True, check=False
    )
    if result.returncode != code:
        raise CheckFailed(f"{command} ended with {result.returncode}: {result.stdout}{result.stderr}")
    rows = json.loads(result.stdout)["checks"]
    found = [row["check"] for row in rows if row["status"] in ("warn", "fail")]
    if len(found) < hung:
        raise CheckFailed(f"{command} found only {found}")


if __name__ == "__main__":
    raise SystemExit(run("bench_doctor", "The doctor", measure))
