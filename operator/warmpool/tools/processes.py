"""Child processes that never outlive their parent, for the demo, the tests and the benchmarks.

Every child leads a process group of its own, is ended by its id and never by its name, and is held
by a guardian (see `guardian`) that kills it should this process die without saying goodbye. The
same holds for temporary directories. A failure says what was waited for and ends with the last
lines of the child's log.
"""

import atexit
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

T = TypeVar("T")

PORTS = range(20000, 32000)
"""Below the kernel's ephemeral range (from 32768): a client that keeps connecting to a server that
is down would else sooner or later be given that very port itself, and the server never return."""

POLL = 0.02
"""Seconds between two looks at a condition."""

_GATE = 'read -r go || exit 1; exec "$@" </dev/null'
"""Keeps the child from starting until it is held by the guardian; it ends if that never happens."""


class ProcessError(Exception):
    """A child could not be started, ended early, or did not do in time what was waited for."""


class _Guardian:
    """This process's end of its guardian, which is started with the first thing to hold."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[tuple[str, str]] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def hold(self, kind: Literal["group", "directory"], name: object) -> None:
        with self._lock:
            self._held.add((kind, str(name)))
            if self._process is None or not self._tell("hold", kind, str(name)):
                self._start()

    def release(self, kind: Literal["group", "directory"], name: object) -> None:
        with self._lock:
            self._held.discard((kind, str(name)))
            self._tell("release", kind, str(name))

    def close(self) -> None:
        """End the guardian, and with it everything that is still held."""
        with self._lock:
            process, self._process = self._process, None
            if process is not None and process.stdin is not None:
                self._reap()
                with contextlib.suppress(OSError):
                    process.stdin.close()
                process.wait()

    def forget(self) -> None:
        """In a fork of this process: what is held is the parent's, and so is the pipe."""
        self._lock = threading.Lock()
        self._held.clear()
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            os.close(process.stdin.fileno())
            process.returncode = 0  # not our child: never wait for it, never warn about it

    def _reap(self) -> None:
        # The guardian would wait for them in vain, since only we can: they are our children.
        for kind, name in self._held:
            if kind == "group":
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.killpg(int(name), signal.SIGKILL)
                    os.waitpid(int(name), 0)

    def _start(self) -> None:
        # Its own session: neither Ctrl-C nor a signal to our group may end it before its work.
        script = Path(__file__).with_name("guardian.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        for kind, name in self._held:
            self._tell("hold", kind, name)

    def _tell(self, *order: str) -> bool:
        """Whether the guardian could be told; not if there is none or somebody has ended it."""
        if self._process is None or self._process.stdin is None:
            return False
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return False
        return True


_GUARDIAN = _Guardian()
atexit.register(_GUARDIAN.close)
os.register_at_fork(after_in_child=_GUARDIAN.forget)


class Process:
    """One running child. As a context manager it is terminated at the end of the block."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._popen = popen
        self._buried = False

    @classmethod
    def start(
        cls,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        name: str | None = None,
    ) -> Self:
        """Start `argv`; its output is appended to `log`, its input is empty.

        Args:
            argv: the command; the program is looked up on PATH unless it is a path.
            log: the file for both output streams; its folder is made if need be.
            env: the whole environment; None passes ours on.
            cwd: the working directory; None stays in ours.
            name: what error messages call it; by default the program's file name.

        Raises:
            ProcessError: there is no such program.
        """
        words = [str(word) for word in argv]
        program = shutil.which(words[0])
        if program is None:
            raise ProcessError(f"no such program: {words[0]}")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            popen = subprocess.Popen(
                ["/bin/sh", "-c", _GATE, "sh", os.path.abspath(program), *words[1:]],  # noqa: PTH100 - resolving symlinks would lose a virtual environment's python
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        _GUARDIAN.hold("group", popen.pid)
        _open_gate(popen)
        return cls(name or Path(words[0]).name, popen, log)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self.returncode is None

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        if self._popen.poll() is not None:
            self._bury()
        return self._popen.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its own end.

        Raises:
            ProcessError: it still runs after `timeout` seconds.
        """
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"{self.name} still runs after {timeout} s") from error
        self._bury()
        return code

    def wait_for(self, predicate: Callable[[], T | None], timeout: float, what: str) -> T:
        """As `wait_until`, but no longer than this process lives."""
        return wait_until(predicate, timeout=timeout, what=what, process=self)

    def terminate(self, grace: float = 10.0) -> int:
        """Ask it to end, insist after `grace` seconds; nothing of its group remains."""
        self.send(signal.SIGTERM)
        self.resume()  # a stopped process takes no notice of SIGTERM
        with contextlib.suppress(ProcessError):
            return self.wait(grace)
        return self.kill()

    def kill(self) -> int:
        """End it as `kill -9` does, with all its group."""
        self._signal_group(signal.SIGKILL)
        return self.wait()

    def pause(self) -> None:
        """Stop it as a hung machine would: its connections stay open and nothing answers."""
        self._signal_group(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_group(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send it, and not its group, a signal; nothing happens if it has ended."""
        if self.alive:
            os.kill(self.pid, number)

    def tail(self, lines: int = 20) -> str:
        return tail(self.log, lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.terminate()

    def _signal_group(self, number: signal.Signals) -> None:
        """Nothing happens if it has ended, also in this moment, when another thread buries it."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _bury(self) -> None:
        """Once, right after its end: later its number may be somebody else's."""
        if not self._buried:
            self._buried = True
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)  # what it started and left behind
            _GUARDIAN.release("group", self.pid)


def _open_gate(popen: subprocess.Popen[bytes]) -> None:
    if popen.stdin is None:
        raise ProcessError("the child was started without its gate")
    with contextlib.suppress(BrokenPipeError), popen.stdin as gate:
        gate.write(b"go\n")


def wait_until(
    predicate: Callable[[], T | None],
    *,
    timeout: float,
    what: str,
    process: Process | None = None,
) -> T:
    """Return the predicate's first true value.

    Raises:
        ProcessError: it took longer than `timeout` seconds, or `process` ended before.
    """
    deadline = time.monotonic() + timeout
    while True:
        if value := predicate():
            return value
        if process is not None and not process.alive:
            raise ProcessError(_story(process, f"ended with {process.returncode} before {what}"))
        if time.monotonic() > deadline:
            late = f"no sign after {timeout:g} s of: {what}"
            raise ProcessError(late if process is None else _story(process, late))
        time.sleep(POLL)  # noqa: TID251 - synchronous tools, no loop to block


def _story(process: Process, what: str) -> str:
    return f"{process.name}: {what}. The end of {process.log.name}:\n{process.tail()}"


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, however long it is; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 400 * lines))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on, all different."""
    with contextlib.ExitStack() as taken:
        ports: list[int] = []
        while len(ports) < count:
            listener = taken.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", secrets.choice(PORTS)))
                ports.append(listener.getsockname()[1])
        return ports


@contextlib.contextmanager
def temporary_directory(prefix: str = "warmpool-") -> Iterator[Path]:
    """A directory that is gone afterwards, even if this process is killed in between."""
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    _GUARDIAN.hold("directory", directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        _GUARDIAN.release("directory", directory)
