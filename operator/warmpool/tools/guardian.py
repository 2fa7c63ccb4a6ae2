"""The one who tidies up after a Python process that died, however it died.

Started by `processes` as a script of its own, in a session of its own. It reads orders from its
standard input, one JSON array a line: `["hold" | "release", "group" | "directory", name]`. When
the input ends, for which the end of the other process is enough (the kernel closes its pipes, after
`kill -9` as well), every group still held is killed and every directory still held is removed.

A pipe rather than PR_SET_PDEATHSIG: that fires when the *thread* that started the child ends, so a
child started from a worker thread dies early; and it reaches the child, not what the child started.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import time

GROUPS_GONE_WITHIN = 5.0
"""Seconds to wait for killed groups before their directories go; bounded because a container whose
first process reaps nobody keeps them as zombies for ever."""


def main() -> None:
    held: dict[str, set[str]] = {"group": set(), "directory": set()}
    for line in sys.stdin:
        order, kind, name = json.loads(line)
        (held[kind].add if order == "hold" else held[kind].discard)(name)
    groups = [int(name) for name in held["group"]]
    for group in groups:
        _signal(group, signal.SIGKILL)
    deadline = time.monotonic() + GROUPS_GONE_WITHIN
    while any(_signal(group, 0) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.02)  # noqa: TID251 - a process of its own, no loop to block
    for directory in held["directory"]:
        shutil.rmtree(directory, ignore_errors=True)


def _signal(group: int, number: int) -> bool:
    """Whether the group was there to be signalled."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
        return True
    return False


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
