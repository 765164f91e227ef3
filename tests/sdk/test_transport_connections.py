"""Connections of both transports: kept, replaced and given up in time, for every thread."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable

import pytest
from support.bad_servers import (
    KINDS,
    Server,
    answering,
    failure,
    get,
    hang,
    ok,
    open_transports,
    start_servers,
    started,
)

from agent_assembly.client.transport import Transport
from agent_assembly.exceptions import GatewayError

serve = pytest.fixture(start_servers)
connect = pytest.fixture(params=KINDS)(open_transports)


def test_connections_are_kept(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """One exchange after the other uses one connection, from whatever thread."""
    server = started(serve, lambda request: ok())
    transport = connect(server.url)
    for _ in range(5):
        get(transport)
        thread = threading.Thread(target=get, args=(transport,))
        thread.start()
        thread.join()
    assert len(server.connections) == 1


def test_a_closed_port_cannot_be_reached(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """Nobody there: unreachable, at once."""
    server = started(serve, lambda request: ok())
    server.close()
    assert failure(connect(server.url), timeout=0.5).code == "gateway_unreachable"


@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_closes_without_an_answer_is_asked_twice(
    reset: bool, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """A connection that broke before the answer is tried once more on a new one, and no more."""
    holder: list[Server] = []

    def handle(connection: socket.socket, number: int) -> None:
        holder[0].request(connection, number)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    holder.append(serve(handle))
    assert failure(connect(holder[0].url)).code == "gateway_unreachable"
    assert len(holder[0].connections) == 2


def test_a_second_try_that_works_is_an_answer(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """One broken connection is not noticed."""
    holder: list[Server] = []

    def handle(connection: socket.socket, number: int) -> None:
        if number:
            answering(holder, lambda request: ok(b"second"))(connection, number)

    holder.append(serve(handle))
    assert get(connect(holder[0].url)).body == b"second"


def test_connections_that_went_stale_are_replaced(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """After the gateway was restarted, every thread's next exchange works, however many connections lay idle."""
    arrived = threading.Barrier(6)
    first = started(serve, lambda request: ok(b"first") if arrived.wait(10) is not None else b"")
    transport = connect(first.url)
    threads = [threading.Thread(target=get, args=(transport,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(first.connections) == 6
    first.close()
    started(serve, lambda request: ok(b"second"), first.port)
    for _ in range(8):
        assert get(transport).body == b"second"


SLOW: dict[str, Callable[[socket.socket], None]] = {
    "says nothing": hang,
    "stops in the headers": lambda c: (c.sendall(b"HTTP/1.1 200 OK\r\nContent-"), hang(c))[1],
    "stops in the body": lambda c: (c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), hang(c))[1],
    "trickles the headers": lambda c: trickle(c, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 500),
    "trickles the body": lambda c: trickle(c, b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"y" * 500, 40),
    "trickles chunks": lambda c: trickle(
        c, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 99, 45
    ),
    "says continue for ever": lambda c: trickle(c, b"HTTP/1.1 100 Continue\r\n\r\n" * 500, 25, 25),
}


def trickle(connection: socket.socket, data: bytes, at_once: int = 1, each: int = 1) -> None:
    connection.sendall(data[:at_once])
    for position in range(at_once, len(data), each):
        time.sleep(0.02)
        connection.sendall(data[position : position + each])


@pytest.mark.parametrize("name", SLOW)
def test_the_deadline_is_for_the_whole_exchange(
    name: str, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """However the time is spent, by silence or byte after byte, it ends when it was said, as a timeout."""
    server = serve(lambda connection, number: SLOW[name](connection))
    error = failure(connect(server.url), timeout=0.3, slack=0.4)
    assert error.code == "gateway_timeout"
    assert str(error) == f"the gateway {server.url} did not answer within 0.3 s"


def test_a_server_that_does_not_read_is_slow_too(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """Sending a large body is part of the time, also when the peer takes a little of it now and then."""

    def sip(connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while connection.recv(20_000):
            time.sleep(0.1)

    server = serve(sip)
    error = failure(connect(server.url), timeout=0.6, slack=0.6, body=b"x" * (30 << 20))
    assert error.code in ("gateway_timeout", "gateway_unreachable")


def test_a_connection_after_a_timeout_is_not_used_again(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """An answer that comes too late is never taken for the answer to the next question."""
    holder: list[Server] = []

    def handle(connection: socket.socket, number: int) -> None:
        while request := holder[0].request(connection, number):
            if b"/slow" in request:
                time.sleep(0.4)
            connection.sendall(ok(b"slow" if b"/slow" in request else b"quick"))

    holder.append(serve(handle))
    transport = connect(holder[0].url)
    assert get(transport, "/quick").body == b"quick"
    with pytest.raises(GatewayError):
        get(transport, "/slow", 0.2)
    for _ in range(3):
        assert get(transport, "/quick").body == b"quick"


def test_threads_get_their_own_answers(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """Many threads at once: each gets the answer to what it asked, and none waits for another."""
    server = started(serve, lambda request: time.sleep(0.05) or ok(request.split(b" ")[1]))
    transport = connect(server.url)
    wrong: list[object] = []

    def work(thread: int) -> None:
        for number in range(5):
            path = f"/{thread}/{number}"
            try:
                answer = get(transport, path)
                if answer.body != path.encode():
                    wrong.append(answer)
            except GatewayError as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(40)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert time.monotonic() - began < 6, "forty threads wait for their own five answers, not for each other's"


def test_no_exchange_waits_for_a_free_connection(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """As many exchanges as there are threads are under way at once: each is answered only when all have arrived."""
    together = threading.Barrier(25)
    server = started(serve, lambda request: ok(b"%d" % together.wait(4)))
    transport = connect(server.url)
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(get(transport).body)) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, answers)) == list(range(25))


def test_waiting_threads_keep_their_own_deadlines(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """While many exchanges hang for long, a short one ends when it was said."""
    server = serve(lambda connection, number: hang(connection))
    transport = connect(server.url)
    threads = [threading.Thread(target=failure, args=(transport, 1.0)) for _ in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    failure(transport, timeout=0.3, slack=0.5)
    for thread in threads:
        thread.join()


def test_short_lived_threads_leave_no_connections(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """A program that makes each call in a new thread does not collect descriptors."""
    server = started(serve, lambda request: ok())
    transport = connect(server.url)
    get(transport)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        thread = threading.Thread(target=get, args=(transport,))
        thread.start()
        thread.join()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_closed_transport_is_unreachable(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """An exchange that comes after closing is an error of ours, without a connection."""
    server = started(serve, lambda request: ok())
    transport = connect(server.url)
    get(transport)
    transport.close()
    assert failure(transport).code == "gateway_unreachable"
    assert len(server.connections) == 1


@pytest.mark.parametrize("url", ["http://does-not-exist.invalid", "https://127.0.0.1:{}", "http://[::1]:{}"])
def test_what_cannot_be_connected_is_unreachable(
    url: str, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """Names without address, servers without TLS, and addresses that nobody listens on."""
    server = serve(lambda connection, number: connection.sendall(connection.recv(9)[:0] + b"HTTP/1.1 400 X\r\n\r\n"))
    assert failure(connect(url.format(server.port)), timeout=5, slack=5).code == "gateway_unreachable"
