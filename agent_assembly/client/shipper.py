"""Sends the spool's records to the gateway from a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from agent_assembly.client import records
from agent_assembly.client.spool import Orphan, Spool, orphans
from agent_assembly.exceptions import GatewayError

BATCH_BYTES = 512 << 10
# Records of a burst travel together: one durable write of the gateway for all of them, and little of the interpreter's
# lock, which the program needs too.
_LINGER = 0.05
_HEARTBEAT = 30.0
_FIRST_RETRY, _LAST_RETRY = 0.1, 5.0
# Refusals that say nothing about what was sent: the session, a slow connection, too many requests.
_PASSING = (401, 408, 429)

# Sends one encoded batch; raises GatewayError.
Send = Callable[[bytes, float], None]


class Shipper:
    """Moves records from a spool to the gateway, in order, until they are acknowledged.

    The thread starts with the first record. Delivery is at least once; the gateway knows records by their event id.
    """

    def __init__(self, spool: Spool, own_instance: str, send: Send, heartbeat: Callable[[], None]) -> None:
        self._spool = spool
        self._own_instance = own_instance
        self._send = send
        self._heartbeat = heartbeat
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.problem: str | None = None

    def notify(self) -> None:
        """Say that there is something to send. Never raises, never waits."""
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    def flush(self, timeout: float) -> bool:
        """Send what waits, in the calling thread; return whether all of it arrived within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._spool.waiting():
            left = deadline - time.monotonic()
            if left <= 0 or not self._sending.acquire(timeout=left):
                return False
            try:
                self._ship(deadline)
                self.problem = None
            except Exception as error:  # noqa: BLE001 - at the end of a program there is nobody left to handle it
                self.problem = str(error)
                if not isinstance(error, GatewayError) or error.code == "gateway_unreachable":
                    return False
            finally:
                self._sending.release()
            if self.problem is not None:
                time.sleep(min(0.05, max(deadline - time.monotonic(), 0)))
        return True

    def stop(self, timeout: float) -> None:
        """End the thread, wait for it at most `timeout` seconds. Idempotent."""
        self._stopping.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                thread = threading.Thread(target=self._run, name="agent-assembly-shipper", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    # The interpreter is going down; the flush at exit sends what the spool holds.
                    return
                self._thread = thread

    def _run(self) -> None:
        retry = _FIRST_RETRY
        adopted = False
        last_heartbeat = time.monotonic()
        while not self._stopping.is_set():
            self._wake.wait(_HEARTBEAT)
            self._wake.clear()
            if self._stopping.wait(_LINGER):
                return
            try:
                with self._sending:
                    self._ship(None)
                if time.monotonic() - last_heartbeat > _HEARTBEAT:
                    self._heartbeat()
                    last_heartbeat = time.monotonic()
                if not adopted:
                    self._adopt()
                    adopted = True
                retry, self.problem = _FIRST_RETRY, None
                if self._spool.waiting():
                    self._wake.set()
            except Exception as error:  # noqa: BLE001 - a thread that died of it would never send again
                self.problem = str(error) or type(error).__name__
                if self._stopping.wait(retry):
                    return
                retry = min(retry * 2, _LAST_RETRY)
                self._wake.set()

    def _ship(self, deadline: float | None) -> None:
        """Send what waits now; with a deadline until then, without one until the thread is to stop.

        What arrives meanwhile waits for its own burst to be whole, unless it is a batch already.
        """
        backlog = True
        while backlog:
            backlog = False
            for segment, payloads, position in self._spool.pending(BATCH_BYTES):
                timeout = _LAST_RETRY if deadline is None else deadline - time.monotonic()
                if timeout <= 0 or (deadline is None and self._stopping.is_set()):
                    return
                self._send(records.batch(payloads), timeout)
                self._spool.shipped(segment, position)
                backlog = backlog or sum(map(len, payloads)) >= BATCH_BYTES

    def _adopt(self) -> None:
        for orphan in orphans(self._spool.directory, self._own_instance):
            try:
                self._send_orphan(orphan)
            except GatewayError as error:
                orphan.release()
                if error.status is None or error.status in _PASSING or error.status >= 500:
                    raise
                # The gateway will never take this one; it stays where it is, and the others do not wait for it.
                continue
            except BaseException:
                orphan.release()
                raise
            orphan.delete()

    def _send_orphan(self, orphan: Orphan) -> None:
        payloads = orphan.payloads + records.unknown_ends(orphan.payloads)
        if orphan.torn:
            payloads.append(records.torn_loss(orphan.header, os.path.basename(orphan.path)))
        start = 0
        while start < len(payloads):
            stop, size = start, 0
            while stop < len(payloads) and (stop == start or size + len(payloads[stop]) <= BATCH_BYTES):
                size += len(payloads[stop])
                stop += 1
            self._send(records.batch(payloads[start:stop], adopted=True), _LAST_RETRY)
            start = stop


def host_name() -> str:
    """The name of this machine, at most 255 characters."""
    return os.uname().nodename[:255] if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")[:255]
