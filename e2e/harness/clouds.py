"""The cloud that journeys run on: the simulator as a child process, or one of the user's."""

import json
import os
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
import yaml

from harness.lab import Lab
from warmpool.tools.demo.clouds import Survey, ask, choose, clouds_yaml_of
from warmpool.tools.processes import Process, free_ports

WORLD: Final = Path(__file__).parent.parent / "world.yaml"
READY_WITHIN: Final = 30.0

Body = dict[str, Any]


class CloudUnderTest(Protocol):
    """What a journey knows of its cloud."""

    name: str
    """Its name in `clouds_yaml`."""
    clouds_yaml: str
    zones: tuple[str, ...]

    def template(self) -> Body:
        """`spec.template` of a pool."""
        ...

    def probe(self) -> Body | None:
        """A probe that its guests answer, if any do."""
        ...

    def servers(self, mark: str) -> list[str]:
        """Names of the servers in Nova that have this in their names."""
        ...

    def used(self) -> int:
        """Servers that the project has."""
        ...

    def allow(self, instances: int) -> None:
        """Let the project have so many servers in all, until the test is over."""
        ...

    def kill_compute(self, hypervisor: str) -> None:
        """End its nova-compute. What runs there goes on running."""
        ...

    def revive_computes(self) -> None:
        """Start again what was killed."""
        ...

    def mend(self) -> None:
        """Have everything as it was before the test."""
        ...


class UserCloud:
    """A cloud of the user's clouds.yaml. Nothing is known to answer in its guests."""

    def __init__(
        self,
        name: str,
        *,
        flavor: str | None,
        image: str | None,
        network: str | None,
        lab: str | None,
    ) -> None:
        self.name = name
        self.clouds_yaml = clouds_yaml_of(name, os.environ)
        self._lab = Lab(name, self.clouds_yaml, lab) if lab else None
        self._choice = choose(self._survey(), flavor=flavor, image=image, network=network)
        self.zones = self._choice.zones

    def template(self) -> Body:
        networks = [{"network": network} for network in self._choice.networks]
        choice = self._choice
        return {"flavor": choice.flavor, "image": choice.image, "networks": networks}

    def probe(self) -> None:
        return None

    def servers(self, mark: str) -> list[str]:
        return [name for s in self._survey().servers if mark in (name := str(s["name"]))]

    def used(self) -> int:
        return self.own().used()

    def allow(self, instances: int) -> None:
        self.own().allow(instances)

    def kill_compute(self, hypervisor: str) -> None:
        self.own().kill_compute(hypervisor)

    def revive_computes(self) -> None:
        self.own().revive_computes()

    def mend(self) -> None:
        if self._lab is not None:
            self._lab.mend()

    def own(self) -> Lab:
        """What its owner may do to it; without one who has said so the test is left out."""
        if self._lab is None:
            pytest.skip(f"nobody has said with --lab that cloud {self.name!r} may be broken")
        return self._lab

    def _survey(self) -> Survey:
        return ask(self.clouds_yaml, self.name)


class Simulator:
    """`warmpool novasim`, with what can be done to it behind everybody's back."""

    name: str = "sim"
    zones: tuple[str, ...] = ("az1", "az2")

    def __init__(self, directory: Path, *, seed: int = 1, world: Path = WORLD) -> None:
        [self.guest_port] = free_ports(1)
        self._world = world
        self._killed: list[str] = []
        clouds, ready = directory / "clouds.yaml", directory / "url"
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "warmpool",
            "novasim",
            "--scenario",
            world,
        ]
        command += ["--seed", str(seed), "--guest-port", str(self.guest_port)]
        command += ["--clouds-out", clouds, "--ready-file", ready]
        self._process = Process.start(command, log=directory / "novasim.log", name="novasim")
        self._process.wait_for(lambda: _text(ready) or None, READY_WITHIN, "its address")
        self._url = _text(ready)
        self.clouds_yaml = clouds.read_text(encoding="utf-8")

    def stop(self) -> None:
        self._process.terminate()

    def template(self) -> Body:
        return {"flavor": "m1.micro", "image": "tiny"}

    def probe(self) -> Body:
        return {"tcpSocket": {"port": self.guest_port}}

    def servers(self, mark: str) -> list[str]:
        return [server["name"] for server in self.records(mark)]

    def records(self, mark: str = "") -> list[Body]:
        """What is true of the servers that have this in their names."""
        return [server for server in self.state()["servers"] if mark in server["name"]]

    def state(self) -> Body:
        """All truth."""
        return self._call("GET", "state")

    def journal(self) -> list[Body]:
        """What was asked for servers and what became of them, from the beginning."""
        told = self._call("GET", "journal")
        assert told["dropped"] == 0, "the journal is too short for this test"
        entries: list[Body] = told["entries"]
        return entries

    def preload(self, **asked: Any) -> None:
        """Servers that are there at once, and that nobody knows of."""
        self._call("POST", "preload", asked)

    def do(self, **command: Any) -> None:
        self._call("POST", "do", command)

    def break_with(self, **fault: Any) -> int:
        """Switch a fault on; its number."""
        return int(self._call("POST", "faults", fault)["id"])

    def disarm(self, fault: int) -> None:
        self._call("DELETE", f"faults/{fault}")

    def used(self) -> int:
        return len(self.records())

    def allow(self, instances: int) -> None:
        self.do(do="quota", instances=instances)

    def kill_compute(self, hypervisor: str) -> None:
        self.do(do="host", host=hypervisor, change="kill")
        self._killed.append(hypervisor)

    def revive_computes(self) -> None:
        while self._killed:
            self.do(do="host", host=self._killed.pop(), change="revive")

    def mend(self) -> None:
        """Switch all faults off, quotas as the world has them, and all hypervisors on."""
        self.revive_computes()
        self._call("DELETE", "faults")
        quota = yaml.safe_load(self._world.read_text(encoding="utf-8"))["quota"]
        self.do(do="quota", **quota)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Body:
        request = urllib.request.Request(  # noqa: S310 - a server of ours on loopback
            f"{self._url}/_sim/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            answer: Body = json.load(response)
        return answer


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""
