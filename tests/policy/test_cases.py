"""The native module answers like the engine: the cases of `cases/`, which the Rust tests read as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_assembly import _core
from agent_assembly.exceptions import PolicyError

FILES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
CASES: list[dict[str, Any]] = [case for file in FILES for case in yaml.safe_load(file.read_text(encoding="utf-8"))]
ANY_CALL = json.dumps({"kind": "tool", "tool": "x", "args": {}})


def sources(case: dict[str, Any]) -> list[tuple[str, str]]:
    files = [(file["name"], file["text"]) for file in case.get("policies", [])]
    return [*files, ("policy.yaml", case["policy"])] if "policy" in case else files


def verdict(policies: list[tuple[str, str]], **call: object) -> dict[str, Any]:
    answer = json.loads(_core.evaluate(policies, json.dumps({"kind": "tool", "args": {}, **call})))
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("case", [case for case in CASES if "calls" in case], ids=lambda case: case["rule"])
def test_a_call_gets_its_verdict(case: dict[str, Any]) -> None:
    """Each expected fact of a verdict holds; a rule that is not expected is not named."""
    for expected in case["calls"]:
        given = {key: expected[key] for key in ("kind", "tool") if key in expected}
        answer = verdict(sources(case), **given)
        wanted = {key: value for key, value in expected.items() if key not in given}
        assert {key: answer[key] for key in wanted} == wanted, expected["tool"]
        assert answer["rule"] == expected.get("rule")


@pytest.mark.parametrize("case", [case for case in CASES if "refused" in case], ids=lambda case: case["rule"])
def test_a_bad_policy_is_refused_with_places(case: dict[str, Any]) -> None:
    """The message has one line for each finding; the attribute says the same in parts."""
    with pytest.raises(PolicyError) as caught:
        _core.evaluate(sources(case), ANY_CALL)
    assert str(caught.value).splitlines() == case["refused"]
    lines = []
    for finding in caught.value.diagnostics:
        assert set(finding) == {"file", "line", "column", "text", "message", "suggestion"}
        line = "{file}:{line}:{column}: {message}".format_map(finding)
        lines.append(line + (f" (did you mean `{finding['suggestion']}`?)" if finding["suggestion"] else ""))
    assert lines == case["refused"]


def test_the_cases_are_found() -> None:
    """An empty directory would pass every test above."""
    assert len([case for case in CASES if "refused" in case]) > 30
    assert len([case for case in CASES if "calls" in case]) > 10


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ("", "the call is not valid: EOF"),
        ("[1]", "the call is not valid: "),
        ('{"kind":"tool","args":{}}', "missing field `tool`"),
        ('{"kind":"tool","tool":"x"}', "missing field `args`"),
        ('{"kind":"toll","tool":"x","args":{}}', "unknown variant `toll`"),
        ('{"kind":"tool","tool":"x","tool":"y","args":{}}', "duplicate field `tool`"),
        ('{"kind":"tool","tool":"x","args":{}} trailing', "trailing characters"),
    ],
)
def test_a_malformed_call_is_an_error(call: str, complaint: str) -> None:
    """Nothing that is not a call gets a verdict."""
    with pytest.raises(PolicyError, match="the call is not valid") as caught:
        _core.evaluate([("p.yaml", open_policy())], call)
    assert complaint in str(caught.value)
    assert caught.value.diagnostics == []


def test_no_policy_is_an_error() -> None:
    """Without a policy there is no verdict, rather than one of nobody's making."""
    with pytest.raises(PolicyError, match="there is no policy to load"):
        _core.evaluate([], ANY_CALL)


def test_other_fields_of_a_call_are_ignored() -> None:
    """The body of a check request is a call."""
    answer = verdict(
        [("p.yaml", open_policy())], tool="x", framework="langchain", server=None, event_id="1", digest="d"
    )
    assert answer == {
        "decision": "allow",
        "reason": "Tool `x` is allowed by the default of policy `p`.",
        "rule": None,
        "policy": "p",
        "code": "default",
    }


def test_the_version_is_that_of_the_distribution() -> None:
    """The native module belongs to this SDK."""
    from importlib.metadata import version

    assert _core.__version__ == version("agent-assembly-core")


def open_policy() -> str:
    return "apiVersion: agent-assembly/v1\nkind: Policy\nmetadata: {name: p}\ndefault: allow\n"
