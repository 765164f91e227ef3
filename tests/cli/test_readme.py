"""The README holds: its policy loads, its links lead somewhere, and its commands are there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from support.calls import make_calls
from support.gateway import Gateway
from support.programs import aasm_py, program, run_command

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_policy_of_the_readme_does_what_it_says(start_gateway: Callable[..., Gateway]) -> None:
    """What people copy first is accepted whole, allows what it allows, and denies the rest."""
    (policy,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    gateway = start_gateway(policy=policy)
    made = make_calls(gateway, ["look_up_order", "search_web", "delete_customer", "anything_else"])
    assert made.stdout.splitlines() == [
        "look_up_order allow",
        "search_web allow",
        "delete_customer deny",
        "anything_else deny",
    ]


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    """Relative links name files of the checkout."""
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_every_option_of_the_readme_is_there(home: Path) -> None:
    """Each `--option` that the README mentions is in the help of `aasm-run` or of a command of `aasm-py`."""
    mentioned = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", README)) - {"--strict"}
    texts = [run_command([program("aasm-run"), "--help"], home).stdout]
    texts += [aasm_py([*words, "--help"], home).stdout for words in (["audit", "list"], ["explain"], ["doctor"])]
    assert [option for option in sorted(mentioned) if not any(option in text for text in texts)] == []


def test_every_make_target_of_the_readme_is_in_the_makefile() -> None:
    """`make …` commands that the README shows exist."""
    targets = set(re.findall(r"^    make ([a-z]+)|`make ([a-z]+)`", README, re.MULTILINE))
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {block or inline for block, inline in targets} <= rules
