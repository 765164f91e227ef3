"""Write `completions/` from the programs themselves: `make completions`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from command_model import aasm_py, aasm_run
from complete_bash import bash_script
from complete_fish import fish_script
from complete_zsh import zsh_script

DIRECTORY = Path(__file__).resolve().parent.parent / "completions"
WRITERS = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}


def scripts(aasm: Path) -> dict[str, str]:
    """Return every file of `completions/` by its path there; `aasm` is the program, which writes its own."""
    made = {}
    for shell, write in WRITERS.items():
        for program in (aasm_run(), aasm_py()):
            made[file_name(shell, program.name)] = write(program)
        result = subprocess.run([aasm, "completions", shell], capture_output=True, text=True, check=True, timeout=60)
        made[file_name(shell, "aasm")] = result.stdout
    return made


def file_name(shell: str, program: str) -> str:
    """Return the name under which `shell` looks for a program's completions, below its directory."""
    return f"{shell}/" + {"bash": program, "zsh": f"_{program}", "fish": f"{program}.fish"}[shell]


if __name__ == "__main__":
    for name, text in scripts(Path(sys.executable).parent / "aasm").items():
        path = DIRECTORY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"wrote {DIRECTORY.name}/")
