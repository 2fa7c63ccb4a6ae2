"""A real cloud that is the tester's to break: its quota, its hypervisors, its servers."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

OWNER: Final = Path(__file__).parent / "owner.py"
ANSWER_WITHIN: Final = 60.0
"""Seconds for one call of the child."""


@dataclass(frozen=True, slots=True)
class Command:
    """How a process was started, so that it can be again."""

    argv: list[str]
    environ: dict[str, str]
    folder: str

    @classmethod
    def of(cls, pid: int) -> "Command":
        proc = Path(f"/proc/{pid}")
        environ = (item.partition("=") for item in _items(proc / "environ"))
        return cls(
            _items(proc / "cmdline"),
            {name: value for name, _, value in environ},
            str((proc / "cwd").readlink()),
        )

    def start(self) -> int:
        """Start it in a session of its own; its process id. It outlives us, so nobody waits."""
        silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
        argv = ["env", "-C", self.folder, *self.argv]
        return os.posix_spawnp("env", argv, self.environ, setsid=True, file_actions=silent)


def _items(file: Path) -> list[str]:
    return [item.decode() for item in file.read_bytes().split(b"\0") if item]


class Lab:
    """What only its owner may do to a cloud. `mend` takes all of it back."""

    def __init__(self, cloud: str, clouds_yaml: str, pid_files: str) -> None:
        """Know the way.

        Args:
            cloud: its name in the clouds.yaml; with the admin role.
            clouds_yaml: the text.
            pid_files: path of the file whose first word is the process id of a hypervisor's
                nova-compute; `{n}` stands for the number in the hypervisor's name.
        """
        self._cloud = cloud
        self._clouds_yaml = clouds_yaml
        self._pid_files = pid_files
        self._limit: int | None = None
        self._killed: dict[str, Command] = {}
        self._disabled = False
        self._made: list[tuple[str, str]] = []

    def used(self) -> int:
        """Servers that the project has."""
        return int(self._quota()["used"])

    def allow(self, instances: int) -> None:
        """Let the project have so many servers in all."""
        before = self._quota(str(instances))["limit"]
        self._limit = before if self._limit is None else self._limit

    def kill_compute(self, hypervisor: str) -> None:
        """Kill its nova-compute with -9. What runs there goes on running."""
        [number] = re.findall(r"\d+", hypervisor)[:1]
        file = Path(self._pid_files.format(n=number))
        pid = int(file.read_text().split()[0])
        self._killed[str(file)] = Command.of(pid)
        os.kill(pid, signal.SIGKILL)

    def revive_computes(self) -> None:
        """Start what was killed again, as it was started."""
        for file, command in self._killed.items():
            pid = command.start()
            Path(file).write_text(f"{pid} {_start_time(pid)}\n")
        self._killed.clear()

    def hypervisors(self) -> list[str]:
        """Their names."""
        return list(self._do("hosts"))

    def disable_all(self) -> None:
        """Let no hypervisor take builds."""
        self._disabled = True
        self._do("hosts", "disabled")

    def enable_all(self) -> None:
        """Let all take builds again."""
        self._do("hosts", "enabled")
        self._disabled = False

    def change(self, server: str, what: str) -> None:
        """Do to a server, by its name, what `owner.change` can."""
        self._do("change", server, what)

    def make(self, kind: str, name: str) -> str:
        """Make an image or a flavor; its name."""
        self._made.append((kind, name))
        self._do("make", kind, name)
        return name

    def remove(self, kind: str, name: str) -> None:
        """Delete it."""
        self._do("remove", kind, name)

    def mend(self) -> None:
        """Have everything as it was."""
        self.revive_computes()
        if self._disabled:
            self.enable_all()
        if self._limit is not None:
            self._quota(str(self._limit))
            self._limit = None

    def tidy(self) -> None:
        """Delete what was made, once no server needs it."""
        while self._made:
            self.remove(*self._made.pop())

    def _quota(self, *number: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._do("quota", *number)
        return answer

    def _do(self, *deed: str) -> Any:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(self._clouds_yaml)
            file.flush()
            done = subprocess.run(
                [sys.executable, str(OWNER), self._cloud, *deed],
                env=os.environ | {"OS_CLIENT_CONFIG_FILE": file.name},
                capture_output=True,
                text=True,
                timeout=ANSWER_WITHIN,
                check=False,
            )
        assert done.returncode == 0, f"{deed} in cloud {self._cloud!r}: {done.stderr[-500:]}"
        return json.loads(done.stdout)


def _start_time(pid: int) -> str:
    """In the kernel's ticks: with it a process id means one process for ever."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
