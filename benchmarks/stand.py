"""What benchmarks that run an operator stand on: its process and rights, a cloud, how they end."""

import asyncio
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from warmpool.tools.controlplane import ControlPlane
from warmpool.tools.crds import ROOT
from warmpool.tools.processes import Process

HOME: Final = "warmpool-system"
"""The operator's namespace."""

RESTS_FOR: Final = 1.0
"""Seconds without work after which an operator is taken to rest."""

STARTED_IN: Final = 10.0
"""Seconds without work after which its start is over: three after its streams have begun it
compares all objects with a LIST once more, page by page and at leisure."""

RESTS_WITHIN: Final = 120.0
"""Seconds in which an operator that has nothing to do comes to rest."""

CLOUD_WITHIN: Final = 60.0
"""Seconds in which the simulator says where it listens."""

Json = dict[str, Any]


def installed(control_plane: ControlPlane) -> Path:
    """Have our kinds and the operator's role; the kubeconfig of its ServiceAccount."""
    for name in ("crds", "manifests/namespace.yaml", "manifests/rbac.yaml"):
        control_plane.kubectl("apply", "-f", str(ROOT / name))
    control_plane.kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"))
    return control_plane.service_account_kubeconfig(HOME, "warmpool")


@contextlib.contextmanager
def simulated_cloud(folder: Path, *arguments: str | Path) -> Iterator[tuple[str, str]]:
    """The simulator as a process of its own; its URL and its clouds.yaml."""
    clouds, ready = folder / "clouds.yaml", folder / "url"
    command: list[str | Path] = [sys.executable, "-m", "warmpool", "novasim", *arguments]
    command += ["--clouds-out", clouds, "--ready-file", ready]
    with Process.start(command, log=folder / "novasim.log", name="novasim") as process:
        process.wait_for(lambda: ready.exists() and ready.read_text(), CLOUD_WITHIN, "its address")
        yield ready.read_text().strip(), clouds.read_text()


def conclude(made: Json, table: Iterable[str], out: Path, missed: Sequence[str] = ()) -> int:
    """Print the table, write the figures, tell which bounds are missed; the exit status."""
    print("\n".join(table))
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(made, indent=2) + "\n")
    print("\n".join(missed), file=sys.stderr)
    return 1 if missed else 0


def percentile(ordered: list[float], q: int) -> float:
    """The nearest rank: a value that was measured."""
    return ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Operator:
    """`warmpool run` as a child, and what it uses."""

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        *,
        identity: str | None = None,
        program: Sequence[str] = ("-m", "warmpool", "run"),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings`: of its environment, beside the usual ones."""
        environ = {key: value for key, value in os.environ.items() if "WARMPOOL" not in key}
        environ |= {"KUBECONFIG": str(kubeconfig), "WARMPOOL_NAMESPACE": HOME}
        environ |= {"WARMPOOL_HISTORY_DIR": f"{log}.history", "WARMPOOL_METRICS_PORT": "0"}
        if identity is not None:
            environ["WARMPOOL_IDENTITY"] = identity
        environ |= settings or {}
        command = [sys.executable, *program]
        self.process = Process.start(command, log=log, env=environ, name="operator")

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        return cpu_of(self.process.pid)

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    async def idle(self, rest: float = RESTS_FOR) -> None:
        """Until it has read what there is and does next to nothing."""
        busy_at = began = perf_counter()
        while perf_counter() < busy_at + rest:
            before = self.cpu()
            await asyncio.sleep(0.5)
            if self.cpu() - before >= 0.03:
                busy_at = perf_counter()
            self.check()
            if perf_counter() > began + RESTS_WITHIN:
                raise RuntimeError(f"the operator never rests:\n{self.process.tail()}")

    def check(self) -> None:
        if not self.process.alive:
            raise RuntimeError(f"the operator has ended:\n{self.process.tail()}")

    async def stop(self) -> None:
        await asyncio.to_thread(self.process.terminate)


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
