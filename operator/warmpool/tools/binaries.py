"""Finds the programs of a Kubernetes control plane, or builds them.

In order of preference: `$KUBEBUILDER_ASSETS`; the binary of `tools/controlplane`, from a cache of
the user's that all checkouts share; building that one.
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from warmpool.tools.gobuild import BinariesError, GoProgram, ensure_built

_INSTEAD = (
    "or set KUBEBUILDER_ASSETS to a directory with etcd, kube-apiserver and kubectl,"
    " or WARMPOOL_KUBECONFIG to the kubeconfig of a cluster that you may write to"
)


@dataclass(frozen=True, slots=True)
class Programs:
    """The first words of each program's command line."""

    etcd: tuple[str, ...]
    kube_apiserver: tuple[str, ...]
    kubectl: tuple[str, ...]
    kube_controller_manager: tuple[str, ...] | None
    """None: nothing is garbage collected and no namespace is ever finally deleted."""


def find_programs(environ: Mapping[str, str]) -> Programs:
    """The programs to start a control plane with, built first if need be.

    Raises:
        BinariesError: there are none and none can be built.
    """
    if assets := environ.get("KUBEBUILDER_ASSETS"):
        return programs_in(Path(assets))
    return programs_of(ensure_binary(environ))


def find_kubectl(environ: Mapping[str, str]) -> tuple[str, ...]:
    """A kubectl for a cluster that runs already: PATH's first, since it need not be built."""
    if kubectl := shutil.which("kubectl", path=environ.get("PATH")):
        return (kubectl,)
    return find_programs(environ).kubectl


def programs_in(directory: Path) -> Programs:
    """The programs of a directory as setup-envtest fills it.

    Raises:
        BinariesError: one that cannot be done without is missing.
    """
    found = {
        name: (str(directory / name),)
        for name in ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager")
        if os.access(directory / name, os.X_OK)
    }
    missing = {"etcd", "kube-apiserver", "kubectl"} - found.keys()
    if missing:
        names = ", ".join(sorted(missing))
        raise BinariesError(f"KUBEBUILDER_ASSETS={directory} lacks {names}: add them or unset it")
    return Programs(
        etcd=found["etcd"],
        kube_apiserver=found["kube-apiserver"],
        kubectl=found["kubectl"],
        kube_controller_manager=found.get("kube-controller-manager"),
    )


def programs_of(binary: Path) -> Programs:
    """The programs that the one binary is."""
    path = str(binary)
    return Programs(
        etcd=(path, "etcd"),
        kube_apiserver=(path, "kube-apiserver"),
        kubectl=(path, "kubectl"),
        kube_controller_manager=(path, "kube-controller-manager"),
    )


def kubernetes_version(go_mod: str) -> str:
    """The version of Kubernetes that a go.mod requires: `v1.36.3`."""
    match = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (v\d+\.\d+\.\S+)", go_mod, re.MULTILINE)
    if match is None:
        raise BinariesError("go.mod requires no k8s.io/kubernetes")
    return match[1]


def linker_flags(version: str) -> str:
    """Make the servers call themselves by their version, else they say v0.0.0; no debug symbols."""
    major, minor, *_ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    sets = [f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items()]
    return " ".join(["-s", "-w", *sets])


def _linker(source: Path) -> tuple[str, ...]:
    return "-ldflags", linker_flags(kubernetes_version((source / "go.mod").read_text()))


CONTROL_PLANE: Final = GoProgram(
    name="controlplane",
    called="the local Kubernetes control plane",
    takes="about 5 minutes",
    instead=_INSTEAD,
    derived=_linker,
)


def ensure_binary(environ: Mapping[str, str]) -> Path:
    """The cached binary, built first if there is none for these sources and this Go.

    Raises:
        BinariesError: no sources, no Go, or the build failed.
    """
    return ensure_built(CONTROL_PLANE, environ)
