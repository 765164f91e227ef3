"""Nothing that happens to a process or its gateway loosens what is in force, and no attempt goes unrecorded."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from sdk.conftest import POLICY, Marks
from support.gateway import Gateway

from agent_assembly import AgentError, AssemblyContext, PolicyViolationError, init_assembly

Initialise = Callable[..., AssemblyContext]


@pytest.fixture
def demanding(start_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway that enforces whatever an agent asks for."""
    return start_gateway(policy=POLICY, options=("--min-enforcement", "enforce"))


@pytest.fixture
def loose(demanding: Gateway) -> Iterator[AssemblyContext]:
    """Governance that asked for none, and got all of it."""
    with init_assembly(gateway_url=demanding.url, agent_id="bot", enforcement_mode="disabled") as context:
        assert context.enforcement_mode == "enforce"
        yield context


def test_what_the_gateway_demanded_holds_when_it_is_gone(
    demanding: Gateway, loose: AssemblyContext, marks: Marks
) -> None:
    """An agent that asked for `disabled` is still denied once the gateway that demanded more cannot be reached."""
    marks.read_record.invoke({"key": "before"})
    demanding.kill()
    with pytest.raises(PolicyViolationError) as caught:
        marks.read_record.invoke({"key": "after"})
    assert caught.value.code == "gateway_unreachable"
    assert marks.ran() == ["read_record-before"]


def test_what_the_gateway_demanded_outlives_the_session(loose: AssemblyContext) -> None:
    """Losing the registration does not give back the posture that was asked for."""
    registration = loose.instance.registration
    assert registration is not None
    loose.instance.forget_registration(registration)
    assert not loose.registered
    assert loose.enforcement_mode == "enforce"


def test_a_context_that_has_ended_cannot_be_entered(initialise: Initialise) -> None:
    """A block that looks governed is governed."""
    context = initialise()
    context.shutdown()
    with pytest.raises(AgentError, match="governance was shut down"), context:
        pass


def test_an_interrupted_check_is_on_record(house: Gateway, initialise: Initialise, marks: Marks) -> None:
    """Ctrl-C while the verdict is awaited: the body does not run, and the attempt is not forgotten."""
    with initialise():
        marks.read_record.invoke({"key": "before"})
        house.pause()
        before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
        timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        timer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                marks.read_record.invoke({"key": "interrupted"})
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)
            house.resume()
    assert [row["outcome"] for row in house.audit()] == ["returned", "cancelled"]
    assert marks.ran() == ["read_record-before"]
