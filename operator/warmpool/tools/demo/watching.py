"""A watch of claims from the client's side, with the moment at which each change arrived."""

import contextlib
import json
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from warmpool.api.names import API_VERSION, ClaimPhase, Kind
from warmpool.tools.processes import Process, ProcessError

SETTLED: Final = frozenset({ClaimPhase.BOUND, ClaimPhase.FAILED})
WITHIN: Final = 20.0
"""Seconds for a watch to begin, and for a claim to be decided. It takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a claim, and how long that took."""

    phase: ClaimPhase
    shortfall: str
    vms: Sequence[Mapping[str, Any]]
    milliseconds: float
    """From the watch event that shows it created to the one that shows it decided."""


class ClaimWatch:
    """Changes of claims in the order in which they came. Made by `watch_claims`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._seen: queue.SimpleQueue[tuple[float, dict[str, Any]]] = queue.SimpleQueue()

    def read(self, descriptor: int) -> None:
        """Until kubectl ends; run in a thread, since a late reader would take a late time."""
        rest = b""
        while chunk := os.read(descriptor, 1 << 16):
            arrived = time.monotonic()
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    self._seen.put((arrived, json.loads(line)))

    def begun(self) -> None:
        """Wait until all that was there before has been told."""
        while self._next("the watch's begin")[1]["type"] != "BOOKMARK":
            pass

    def decision(self, name: str) -> Decision:
        """Wait until a claim that is created from now on is bound or refused.

        Raises:
            ProcessError: it is neither, in time.
        """
        created = None
        while True:
            arrived, event = self._next(f"a decision on claim {name}")
            claim = event["object"]
            if claim["metadata"].get("name") != name:  # another claim, or a bookmark
                continue
            if event["type"] == "ADDED":
                created = arrived
            status = claim.get("status", {})
            if created is not None and status.get("phase") in SETTLED:
                return Decision(
                    ClaimPhase(status["phase"]),
                    status.get("shortfall", {}).get("message", ""),
                    status.get("allocation", {}).get("vms", []),
                    1000 * (arrived - created),
                )

    def _next(self, what: str) -> tuple[float, dict[str, Any]]:
        try:
            return self._seen.get(timeout=WITHIN)
        except queue.Empty:
            code = self._process.returncode
            ended = "" if code is None else f"; the watch has ended with {code}"
            raise ProcessError(f"no sign after {WITHIN:g} s of: {what}{ended}") from None


@contextlib.contextmanager
def watch_claims(
    kubectl: Sequence[str], env: Mapping[str, str], namespace: str, folder: Path
) -> Iterator[ClaimWatch]:
    """Watch the claims of a namespace, from now on."""
    url = (
        f"/apis/{API_VERSION}/namespaces/{namespace}/{Kind.VM_CLAIM.plural}?watch=true"
        "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    )
    pipe = folder / "claims.pipe"
    os.mkfifo(pipe, 0o600)
    with contextlib.ExitStack() as stack:
        stack.callback(pipe.unlink)
        descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # or it would wait for a writer
        stack.callback(os.close, descriptor)
        command = [*kubectl, "get", "--raw", url]
        process = Process.start(command, log=pipe, env=env, name="kubectl")
        watch = ClaimWatch(process)
        os.set_blocking(descriptor, True)
        reader = threading.Thread(target=watch.read, args=(descriptor,), daemon=True)
        reader.start()
        stack.callback(reader.join)  # after the end of kubectl, which is what it reads
        stack.enter_context(process)
        watch.begun()
        yield watch
