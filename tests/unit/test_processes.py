"""Children that never outlive their parent."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from warmpool.tools.processes import (
    PORTS,
    Process,
    ProcessError,
    free_ports,
    temporary_directory,
    wait_until,
)

GRANDCHILD = "sleep 60 & echo $!; wait"


def sh(script: str, tmp_path: Path) -> Process:
    return Process.start(["sh", "-c", script], log=tmp_path / "logs" / "log", name="child")


def running(pid: int) -> bool:
    """Whether it runs; one that ended and that nobody has asked about yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before, or while, it is read
        return False
    return state != "Z"


def gone(*pids: int) -> bool:
    return not any(running(pid) for pid in pids)


def python(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(  # noqa: S603 - our own interpreter
        command, capture_output=True, text=True, check=False, timeout=30
    )


def first_line(process: Process) -> str:
    return process.wait_for(lambda: process.tail(1), 5, "its first line")


def test_a_child_leads_its_own_group_and_is_terminated_by_its_block(tmp_path: Path) -> None:
    with sh("exec sleep 60", tmp_path) as child:
        assert child.alive
        assert os.getpgid(child.pid) == child.pid
    assert child.returncode == -signal.SIGTERM
    assert gone(child.pid)


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_what_it_started_ends_with_it(end: str, tmp_path: Path) -> None:
    child = sh(GRANDCHILD, tmp_path)
    grandchild = int(first_line(child))
    getattr(child, end)()
    wait_until(lambda: gone(grandchild), timeout=5, what="the grandchild's end")


def test_one_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    child = sh("trap '' TERM; echo ready; while :; do sleep 0.1; done", tmp_path)
    first_line(child)
    assert child.terminate(grace=0.1) == -signal.SIGKILL


def test_a_paused_one_can_be_terminated(tmp_path: Path) -> None:
    child = sh("exec sleep 60", tmp_path)
    child.pause()
    assert child.terminate(grace=5) == -signal.SIGTERM


def test_ending_it_twice_is_quiet(tmp_path: Path) -> None:
    child = sh("exit 3", tmp_path)
    assert child.wait(5) == 3
    assert child.terminate() == 3
    assert child.kill() == 3


def test_an_early_end_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    child = sh("echo no such flag; exit 4", tmp_path)
    with pytest.raises(ProcessError, match=r"child: ended with 4 before ready.*\n.*no such flag"):
        child.wait_for(lambda: False, 5, "ready")


def test_a_wait_that_is_too_long_names_what_it_waited_for(tmp_path: Path) -> None:
    with (
        sh("exec sleep 60", tmp_path) as child,
        pytest.raises(ProcessError, match=r"no sign after 0\.05 s of: the moon"),
    ):
        child.wait_for(lambda: False, 0.05, "the moon")


def test_a_program_that_does_not_exist_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="no such program: never-was"):
        Process.start(["never-was"], log=tmp_path / "log")


def test_its_environment_is_the_one_given_and_its_input_empty(tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ["/bin/sh", "-c", 'cat; echo "$ONLY $HOME"']
    assert Process.start(words, log=log, env={"ONLY": "this"}).wait(5) == 0
    assert log.read_text() == "this \n"


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """With PR_SET_PDEATHSIG it would not."""
    started: list[Process] = []
    thread = threading.Thread(target=lambda: started.append(sh("exec sleep 60", tmp_path)))
    thread.start()
    thread.join()
    with started[0] as child, pytest.raises(ProcessError, match="still runs"):
        child.wait(0.2)


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "os._exit(0)", "sys.exit(0)"])
def test_nothing_is_left_however_the_parent_ends(ending: str) -> None:
    script = f"""
import os, sys
from pathlib import Path
from warmpool.tools.processes import Process, temporary_directory
held = temporary_directory()
directory = held.__enter__()
child = Process.start(["sh", "-c", {GRANDCHILD!r}], log=directory / "log")
grandchild = child.wait_for(lambda: child.tail(1), 5, "a line")
child.pause()
print(child.pid, grandchild, directory, flush=True)
{ending}
"""
    done = python(script)
    child, grandchild, directory = done.stdout.split()
    assert Path(directory).name.startswith("warmpool-")
    pids = int(child), int(grandchild)
    what = "the end of all it left"
    wait_until(lambda: gone(*pids) and not Path(directory).exists(), timeout=10, what=what)


def test_a_fork_of_ours_ends_without_ending_our_children(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
from warmpool.tools.processes import Process
child = Process.start(["sleep", "60"], log=Path({str(tmp_path)!r}) / "log")
fork = os.fork()
if fork == 0:
    sys.exit(0)
os.waitpid(fork, 0)
print(child.alive)
child.kill()
"""
    done = python(script)
    assert done.stdout.strip() == "True"


def test_a_temporary_directory_is_gone_after_an_exception() -> None:
    held = temporary_directory()
    directory = held.__enter__()
    (directory / "file").touch()
    assert not held.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert not directory.exists()


def test_free_ports_differ_and_are_no_clients_own() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert set(ports) <= set(PORTS)
