"""What the story happens on: control plane, simulator, operators; and how all of it ends."""

import contextlib
import json
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from warmpool.api.names import LEASE_NAME, LEDGER_NAME, Kind
from warmpool.tools.binaries import Programs
from warmpool.tools.controlplane import ControlPlane
from warmpool.tools.crds import ROOT
from warmpool.tools.demo.samples import NAMESPACE
from warmpool.tools.demo.watching import ClaimWatch, watch_claims
from warmpool.tools.processes import Process, tail

OPERATORS: Final = ("operator-1", "operator-2")
SYSTEM: Final = "warmpool-system"
ACCOUNT: Final = "warmpool"
TOKEN_HOURS: Final = 24
"""How long the operators of a demo that stays up can log in."""
LOOK: Final = 0.7
"""Seconds between two looks with kubectl, which takes a tenth of a second of CPU each."""
SIMULATOR_WITHIN: Final = 30.0
TIDY_WITHIN: Final = 180.0
"""Seconds for all servers to be gone. A real Nova takes many of them."""

Object = dict[str, Any]


class DemoFailed(Exception):
    """A step did not come true. `log` is the end of the log that says most about it."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.log = log


class Stage:
    """One cluster with what runs beside it. Made by `open_stage`, in which everything ends."""

    def __init__(self, cluster: ControlPlane, kubectl: Sequence[str], folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.operators: list[Process] = []
        self.installation = ""
        """The id that every server of this installation carries in a tag. Empty: not yet known."""
        self._program = kubectl

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """What kubectl prints, as the admin and in the namespace of the samples."""
        return self.cluster.kubectl(*args, stdin=stdin).stdout

    def objects(self, kind: Kind, *args: str) -> list[Object]:
        """The objects of a kind, by name."""
        answer = json.loads(self.kubectl("get", kind.plural, *args, "-o", "json"))
        items: list[Object] = answer["items"]
        return items

    def set_up(self) -> None:
        """The kinds, the operator's namespace and rights, the namespace of the samples."""
        manifests = ROOT / "manifests"
        crds = str(ROOT / "crds")
        self.kubectl("apply", "-f", crds)
        self.kubectl("wait", "--for=condition=Established", "-f", crds, "--timeout=30s")
        for name in ("namespace", "rbac", "users", "samples/namespace"):
            self.kubectl("apply", "-f", str(manifests / f"{name}.yaml"))
        self.kubectl("config", "set-context", "--current", f"--namespace={NAMESPACE}")

    def start_operators(self, stack: contextlib.ExitStack) -> None:
        """Two replicas, each with nothing but the rights that `manifests/rbac.yaml` gives."""
        login = self.cluster.service_account_kubeconfig(SYSTEM, ACCOUNT, hours=TOKEN_HOURS)
        for name in OPERATORS:
            env = {
                **_without_settings(self.cluster.environment(login)),
                "WARMPOOL_IDENTITY": name,
                "WARMPOOL_NAMESPACE": SYSTEM,
            }
            process = Process.start(
                [sys.executable, "-m", "warmpool", "run"],
                log=self.folder / f"{name}.log",
                env=env,
                name=name,
            )
            stack.enter_context(process)
            self.operators.append(process)

    def leader(self) -> str:
        """Name of the replica that leads. Empty: none does."""
        lease = self.cluster.kubectl(
            "get", "lease", LEASE_NAME, f"--namespace={SYSTEM}", "-o", "json", check=False
        )
        if lease.returncode != 0:
            return ""
        return str(json.loads(lease.stdout)["spec"].get("holderIdentity") or "")

    def knows_installation(self) -> bool:
        """Whether the leader has taken over, and so said which servers are ours."""
        answer = self.cluster.kubectl(
            "get",
            Kind.BINDING_LEDGER.plural,
            LEDGER_NAME,
            f"--namespace={SYSTEM}",
            "-o",
            "jsonpath={.spec.installation}",
            check=False,
        )
        self.installation = answer.stdout if answer.returncode == 0 else ""
        return bool(self.installation)

    def leader_log(self) -> str:
        """The end of the log of the replica that leads, or of the first one."""
        name = self.leader() or OPERATORS[0]
        return tail(self.folder / f"{name}.log")

    def check_operators(self) -> None:
        """Raise DemoFailed if one has ended."""
        for process in self.operators:
            if not process.alive:
                code = process.returncode
                raise DemoFailed(f"{process.name} has ended with {code}", process.tail())

    def wait_for(self, look: Callable[[], bool], *, within: float, what: str) -> None:
        """Look again and again until it is so.

        Raises:
            DemoFailed: it takes longer, or an operator has ended.
        """
        deadline = time.monotonic() + within
        while not look():
            self.check_operators()
            if time.monotonic() > deadline:
                raise DemoFailed(f"no sign after {within:g} s of: {what}", self.leader_log())
            pause(LOOK)

    def watch_claims(self) -> contextlib.AbstractContextManager[ClaimWatch]:
        """A client's watch of the claims."""
        return watch_claims(self._program, self.cluster.environment(), NAMESPACE, self.folder)

    def tidy(self) -> None:
        """Delete claims, pools and namespace, so that no server remains in the cloud.

        Raises:
            DemoFailed: they are not gone in time.
        """
        for kind, name in (
            (Kind.VM_CLAIM.plural, "--all"),
            (Kind.WARM_POOL.plural, "--all"),
            ("namespace", NAMESPACE),
        ):
            self._delete(kind, name)

    def _delete(self, kind: str, name: str) -> None:
        # Not `kubectl`: one in our process group would end at the Ctrl-C that brought us here.
        command = [*self._program, "delete", kind, name, "--ignore-not-found", "--wait"]
        log = self.folder / "tidy.log"
        env = self.cluster.environment()
        with Process.start(command, log=log, env=env, name="kubectl") as process:
            deadline = time.monotonic() + TIDY_WITHIN
            while process.alive:
                if time.monotonic() > deadline or not any(o.alive for o in self.operators):
                    raise DemoFailed(f"{kind} {name} cannot be deleted", self.leader_log())
                pause(0.1)
            if process.returncode != 0:
                raise DemoFailed(f"{kind} {name} cannot be deleted", process.tail())


@contextlib.contextmanager
def open_stage(programs: Programs, folder: Path) -> Iterator[Stage]:
    """A control plane of our own, which ends with the block."""
    with ControlPlane(programs=programs) as cluster:
        yield Stage(cluster, programs.kubectl, folder)


def start_simulator(stack: contextlib.ExitStack, folder: Path) -> str:
    """Start `warmpool novasim` with the demo's world; the text of its clouds.yaml.

    Raises:
        ProcessError: it did not start.
    """
    world, clouds, ready = (folder / name for name in ("world.yaml", "clouds.yaml", "ready"))
    world.write_text(_world(), encoding="utf-8")
    options: list[str | Path] = ["--scenario", world, "--clouds-out", clouds, "--ready-file", ready]
    process = Process.start(
        [sys.executable, "-m", "warmpool", "novasim", *options],
        log=folder / "novasim.log",
        env=_without_settings(os.environ),
        name="novasim",
    )
    stack.enter_context(process)
    process.wait_for(ready.exists, SIMULATOR_WITHIN, "its API")
    return clouds.read_text(encoding="utf-8")


def _world() -> str:
    """The demo's world, its guests on addresses that no other simulator of this machine has."""
    world = yaml.safe_load(Path(__file__).with_name("world.yaml").read_text(encoding="utf-8"))
    network = f"127.{64 + secrets.randbelow(63)}.{secrets.randbelow(256)}.0/24"
    guests = world.setdefault("guests", {}) | {"network": network}
    return yaml.safe_dump(world | {"guests": guests})


def pause(seconds: float) -> None:
    """Wait, without being busy."""
    threading.Event().wait(seconds)


def on_signals(handler: Callable[[int], None]) -> None:
    """Let Ctrl-C, a kind kill and a closed terminal all mean the same."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: handler(number))


def _without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """No setting of the user's own operator reaches the demo's."""
    return {key: value for key, value in environ.items() if not key.startswith("WARMPOOL_")}
