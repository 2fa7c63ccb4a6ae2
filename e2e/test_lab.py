"""What the journeys do to a real cloud: taken back afterwards."""

import gc
import os
import subprocess
import sys
from pathlib import Path

from harness.lab import Command, Lab

from warmpool.tools.processes import wait_until

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def test_a_process_that_was_killed_is_started_again_as_it_was(tmp_path: Path) -> None:
    """Nobody waits for the new one: pytest must not take that for a process that was forgotten."""
    old = subprocess.Popen(
        SLEEPER, cwd=tmp_path, env={"HOME": "/nowhere"}, stdout=subprocess.PIPE, text=True
    )
    assert old.stdout is not None
    assert old.stdout.readline() == "up\n"  # before, /proc may still show what forked it
    before = Command.of(old.pid)
    (tmp_path / "compute7").write_text(f"{old.pid}\n")
    lab = Lab("any", "", str(tmp_path / "compute{n}"))
    lab.kill_compute("host7.example")
    old.communicate()
    lab.revive_computes()
    new = int((tmp_path / "compute7").read_text().split()[0])
    try:
        gc.collect()
        assert new != old.pid
        assert os.getsid(new) == new
        wait_until(lambda: Command.of(new) == before, timeout=30, what="the same command")
    finally:
        os.kill(new, 9)
        os.waitpid(new, 0)
