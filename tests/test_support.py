"""The tests' own helpers do what the tests believe of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.calls import make_calls
from support.gateway import Gateway, gateways_under, is_gateway, stop_gateway_of


def test_a_gateway_of_the_tests_is_seen_until_it_ends(home: Path) -> None:
    """The check at the end of the session would find one that survives."""
    gateway = Gateway(home).start()
    assert gateways_under(home) == [gateway.pid]
    pid = gateway.pid
    assert gateway.stop() == 0
    assert gateways_under(home) == []
    assert not is_gateway(pid)


def test_a_gateway_that_a_program_started_is_ended_by_its_home(home: Path) -> None:
    """What runs for a home is found through its pid file, also when it hangs."""
    gateway = Gateway(home).start()
    gateway.pause()
    stop_gateway_of(home)
    assert gateway.stop() == 0


def test_a_gateway_that_cannot_start_fails_the_test_with_its_words(home: Path) -> None:
    """The reason is in the failure, not only in a log that goes away."""
    with pytest.raises(AssertionError, match=r"policy\.yaml"):
        Gateway(home, policy="kind: Nonsense\n").start()


def test_a_paused_gateway_answers_nothing_and_a_resumed_one_does(gateway: Gateway) -> None:
    """SIGSTOP leaves the port open and the caller waiting."""
    gateway.pause()
    with pytest.raises(TimeoutError):
        gateway.request("GET", "/healthz", timeout=0.3)
    gateway.resume()
    assert gateway.request("GET", "/healthz")[0] == 200


def test_records_of_scripted_calls_are_settled_when_they_are_read(start_gateway: Callable[..., Gateway]) -> None:
    """`audit()` gives whole records, oldest first, and `verify` a chain that holds."""
    gateway = start_gateway()
    make_calls(gateway, ["one", ("two", {"amount": 3})], agent="ada")
    assert [(row["agent_id"], row["tool"], row["outcome"]) for row in gateway.audit()] == [
        ("ada", "one", "returned"),
        ("ada", "two", "returned"),
    ]
    assert gateway.verify().returncode == 0


def test_a_killed_gateway_starts_again_with_its_records(gateway: Gateway) -> None:
    """`kill` is a crash: the home stays, and a later start serves it."""
    make_calls(gateway, ["one"])
    gateway.audit()
    gateway.kill()
    gateway.start()
    assert [row["tool"] for row in gateway.audit()] == ["one"]
