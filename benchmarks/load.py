"""A client that loads a gateway over one kept connection with requests prepared beforehand.

As a program it is a worker of `bench_gateway`: `load.py PORT HOME AGENT`. Bounded by what it is asked for, and gone
with its standard input.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from agent_assembly.canonical import digest
from agent_assembly.client import records
from agent_assembly.client.gateway import GatewayClient
from agent_assembly.client.records import Writer
from agent_assembly.governance import Outcome, ToolCall, Verdict, new_event_id

ENDS_IN_A_BATCH = 500
ARGUMENTS = {"city": "Reykjavík", "days": 3, "units": "metric"}


class Client:
    """A registered instance with one connection to the gateway, that waits for each answer before it asks again."""

    def __init__(self, port: int, home: str, agent: str) -> None:
        self.agent = agent
        self.writer = Writer(agent, os.urandom(16).hex(), "")
        client = GatewayClient(f"http://127.0.0.1:{port}", home=home)
        instance = {
            "agent_id": agent,
            "instance_id": self.writer.instance_id,
            "sdk_version": "benchmark",
            "python_version": sys.version.split()[0],
            "frameworks": [],
            "enforcement_mode": "enforce",
            "pid": os.getpid(),
            "host": os.uname().nodename,
        }
        registration = client.register(instance, 10.0)
        client.close()
        self.revision = registration.policy_revision
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {registration.session_token}\r\n"
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, method: str, path: str, kind: str = "", body: bytes = b"") -> bytes:
        """Return the bytes of one request."""
        content = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n" if body else ""
        return f"{method} {path} HTTP/1.1\r\n{self._head}{content}\r\n".encode() + body

    def check_requests(self, count: int) -> tuple[list[str], list[bytes]]:
        """Return the ids of `count` new calls and the requests that ask for their verdicts."""
        call = self.call("get_weather")
        body = json.dumps(
            {
                "event_id": call.event_id,
                "call_id": call.call_id,
                "attempt": 1,
                "kind": "tool",
                "tool": call.tool,
                "framework": call.framework,
                "server": None,
                "agent_name": None,
                "parent_event_id": None,
                "cwd": call.cwd,
                "digest": call.digest,
            }
        ).encode()
        assert call.args_json is not None
        body = body[:-1] + b',"args":' + call.args_json + b"}"
        first = self.request("POST", "/v1/check", "application/json", body)
        ids = [new_event_id() for _ in range(count)]
        return ids, [first.replace(call.event_id.encode(), event_id.encode()) for event_id in ids]

    def call(self, tool: str) -> ToolCall:
        call = ToolCall(tool=tool, framework="benchmark", arguments=ARGUMENTS)
        assert call.args_json is not None
        call.digest = digest(call.tool, self.agent, None, call.args_json)
        return call

    def record_pair(self, tool: str) -> tuple[bytes, bytes, bytes]:
        """Return an event id and the records of its call: made once, with other ids put in afterwards."""
        call = self.call(tool)
        verdict = Verdict(
            "allow", "No rule speaks of it.", "default", False, policy="benchmark", revision=self.revision
        )
        begin = records.begin_record(self.writer, call, verdict)
        end = records.end_record(self.writer, call, Outcome("returned"), 1_234_567)
        return call.event_id.encode(), begin, end

    def end_batches(self, ids: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """Yield the requests that end the calls `ids`, each with the number of its records."""
        known, _, end = self.record_pair("get_weather")
        for start in range(0, len(ids), ENDS_IN_A_BATCH):
            part = ids[start : start + ENDS_IN_A_BATCH]
            yield len(part), self.events([end.replace(known, event_id.encode()) for event_id in part])

    def events(self, payloads: list[bytes]) -> bytes:
        return self.request("POST", "/v1/events", "application/x-protobuf", records.batch(payloads))

    def exchange(self, request: bytes) -> bytes:
        """Send one request and return the body of the answer, which must be a 200."""
        self._socket.sendall(request)
        data = self._socket.recv(65536)
        while True:
            head, separator, body = data.partition(b"\r\n\r\n")
            if separator:
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                if len(body) >= length:
                    break
            more = self._socket.recv(65536)
            if not more:
                raise SystemExit(f"the gateway closed the connection after {data!r}")
            data += more
        if not data.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"the gateway answered {data[:400]!r}")
        return body

    def send_events(self, count: int, request: bytes) -> None:
        """Hand over a batch of `count` records; end the program unless the gateway took all of them as new."""
        answer = json.loads(self.exchange(request))
        if answer != {"accepted": count, "duplicates": 0, "rejected": []}:
            raise SystemExit(f"of {count} records the gateway said {str(answer)[:400]}")

    def timed(self, requests: Sequence[bytes], expected: bytes) -> dict[str, Any]:
        """Send `requests` one after the other; return when it was and what each took, in nanoseconds."""
        exchange, clock, each = self.exchange, time.perf_counter_ns, []
        before = resource.getrusage(resource.RUSAGE_SELF)
        first = clock()
        for request in requests:
            began = clock()
            if expected not in exchange(request):
                raise SystemExit(f"an answer without {expected!r}")
            each.append(clock() - began)
        last = clock()
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"first": first, "last": last, "each": each, "processor": used}


def main() -> None:
    port, home, agent = sys.argv[1:]
    client = Client(int(port), home, agent)
    ids: list[str] = []
    requests: list[bytes] = []
    expected = b""
    for line in sys.stdin:
        asked = json.loads(line)
        answer: Any = True
        if asked["do"] == "prepare check":
            expected = b'"decision":"allow"'
            ids, requests = client.check_requests(asked["count"])
        elif asked["do"] == "prepare healthz":
            expected = b'"status":"ok"'
            ids, requests = [], [client.request("GET", "/healthz")] * asked["count"]
        elif asked["do"] == "go":
            answer = client.timed(requests, expected)
        elif asked["do"] == "end":
            answer = []
            for count, request in client.end_batches(ids):
                began = time.perf_counter_ns()
                client.send_events(count, request)
                answer.append((time.perf_counter_ns() - began) / 1e6)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
