"""A home whose audit log holds a million records, made once by a real gateway from real batches, and kept."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from load import Client
from measuring import POLICY, ROOT, WORK, CheckFailed, Gateway, capture, environment, find_aasm, fingerprint

RECORDS = 1_000_000
AGENT = "million"
TOOLS = ("get_weather", "search", "read_file", "write_file", "send_mail", "look_up_order", "open_ticket", "translate")
_CALLS_IN_A_BATCH = 2000
_INDEX_SECONDS = 120


def million_home() -> tuple[Path, float]:
    """Return the home, and how many records a second the gateway took when it was made.

    Kept for as long as the gateway's version and the code that writes its files are the same.
    """
    version = capture([find_aasm(), "version"], environment(WORK)).strip()
    sources = sorted((ROOT / "native" / "gateway" / "src" / "audit").glob("*.rs"))
    key = fingerprint([version, str(RECORDS), *sources, ROOT / "native" / "gateway" / "src" / "state.rs"])
    home, done = WORK / f"million-{key}", WORK / f"million-{key}.json"
    if not done.exists():
        for old in WORK.glob("million-*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        home.mkdir(mode=0o700, parents=True)
        done.write_text(json.dumps({"version": version, "seconds": _fill(home)}))
    return home, RECORDS / json.loads(done.read_text())["seconds"]


def _fill(home: Path) -> float:
    print(f"making a home of {RECORDS:,} records in {home}; it is kept for the next time", flush=True)
    running = Gateway(home, policy=POLICY).start()
    try:
        client = Client(running.port, str(home), AGENT)
        pairs = [client.record_pair(tool) for tool in TOOLS]
        taken = 0.0
        for first in range(0, RECORDS // 2, _CALLS_IN_A_BATCH):
            payloads = []
            for number in range(first, first + _CALLS_IN_A_BATCH):
                known, begin, end = pairs[number % len(pairs)]
                event_id = f"{number:012x}{os.urandom(10).hex()}".encode()
                payloads += [begin.replace(known, event_id), end.replace(known, event_id)]
            request = client.events(payloads)
            began = time.perf_counter()
            client.send_events(len(payloads), request)
            taken += time.perf_counter() - began
        deadline = time.monotonic() + _INDEX_SECONDS
        while True:
            answer = running.control("/v1/audit", limit=1, count="true", agent=AGENT, outcome="returned")
            if answer["total"] == RECORDS // 2 and answer["indexed_through"] >= answer["head"]["seq"]:
                return taken
            if time.monotonic() > deadline:
                raise CheckFailed(f"of {RECORDS // 2} calls {answer['total']} are in the index")
            time.sleep(0.2)
    finally:
        running.stop()
