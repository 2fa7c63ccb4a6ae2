"""Finds the programs of a Kubernetes control plane, or builds them.

In order of preference: `$KUBEBUILDER_ASSETS`; the binary of `tools/controlplane`, from a cache of
the user's that all checkouts share; building that one. The cache is keyed by what goes into the
build. Entries appear by a rename, whole or not at all; one process builds while others wait.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from warmpool.tools.processes import Process, wait_until

BINARY = "controlplane"
BUILD_WITHIN = 3600.0
"""Seconds for a build, or for another's: minutes are usual, on a busy laptop many of them."""
BUILD_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
BUILD_ENVIRONMENT = {"CGO_ENABLED": "0", "GOWORK": "off"}
"""No C compiler is needed, and no workspace file above the checkout changes what is built."""

_INSTEAD = (
    "or set KUBEBUILDER_ASSETS to a directory with etcd, kube-apiserver and kubectl,"
    " or WARMPOOL_KUBECONFIG to the kubeconfig of a cluster that you may write to"
)


class BinariesError(Exception):
    """There are no programs to start; the text names the remedy."""


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


def ensure_binary(environ: Mapping[str, str]) -> Path:
    """The cached binary, built first if there is none for these sources and this Go.

    Raises:
        BinariesError: no sources, no Go, or the build failed.
    """
    source = source_directory()
    key = cache_key(source_files(source), go_platform(source, environ))
    target = cache_root(environ) / key / BINARY
    if not target.exists():
        target.parent.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target.parent):
            if not target.exists():
                _build_into(target.parent, source, environ)
    return target


def source_directory() -> Path:
    directory = Path(__file__).resolve().parents[3] / "tools" / "controlplane"
    if not (directory / "go.mod").exists():
        raise BinariesError(
            f"the control plane is built in a checkout of warmpool: use one, {_INSTEAD}"
        )
    return directory


def source_files(source: Path) -> dict[str, bytes]:
    """All that goes into the build, by file name."""
    paths = [source / "go.mod", source / "go.sum", *source.glob("*.go")]
    return {path.name: path.read_bytes() for path in paths}


def cache_root(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(base) / "warmpool" / "controlplane"


def cache_key(files: Mapping[str, bytes], platform: str) -> str:
    """Changes with a file's name or content and with the Go that builds, with nothing else."""
    digest = hashlib.sha256(platform.encode())
    for name, content in sorted(files.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:24]


def go_platform(source: Path, environ: Mapping[str, str]) -> str:
    """The Go that would build there, and for what: `go1.26.8 linux amd64`.

    Raises:
        BinariesError: no Go, or one too old that may not fetch the one it needs.
    """
    command = [_go(environ), "env", "GOVERSION", "GOOS", "GOARCH"]
    answer = subprocess.run(
        command, cwd=source, env=dict(environ), capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise BinariesError(f"`go env` failed: {answer.stderr.strip()}; mend Go, {_INSTEAD}")
    return " ".join(answer.stdout.split())


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


def _go(environ: Mapping[str, str]) -> str:
    if go := shutil.which("go", path=environ.get("PATH")):
        return go
    raise BinariesError(
        f"Go is not on PATH, and it builds the control plane: install it, {_INSTEAD}"
    )


@contextlib.contextmanager
def _only_one(entry: Path) -> Iterator[None]:
    """Hold the lock of a cache entry; it is the kernel's, so a dead builder's is free again."""
    with entry.with_name(f"{entry.name}.lock").open("w") as lock:
        with _Progress("waiting for another process to build the control plane") as progress:
            wait_until(
                lambda: progress.told(done=_try_lock(lock.fileno())),
                timeout=BUILD_WITHIN,
                what=f"the lock {lock.name}",
            )
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _build_into(entry: Path, source: Path, environ: Mapping[str, str]) -> None:
    for leftover in entry.parent.glob(f".{entry.name}.*"):  # of a builder that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}."))
    try:
        _build(fresh / BINARY, source, environ)
        fresh.chmod(0o755)
        fresh.rename(entry)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _build(target: Path, source: Path, environ: Mapping[str, str]) -> None:
    flags = linker_flags(kubernetes_version((source / "go.mod").read_text()))
    command = [_go(environ), "build", *BUILD_FLAGS, "-ldflags", flags, "-o", str(target), "."]
    log = target.with_name("build.log")
    what = "building the local Kubernetes control plane (once per version, about 5 minutes)"
    with (
        _Progress(what) as progress,
        Process.start(command, log=log, cwd=source, env={**environ, **BUILD_ENVIRONMENT}) as build,
    ):
        wait_until(
            lambda: progress.told(done=not build.alive),
            timeout=BUILD_WITHIN,
            what="the build's end",
        )
        code = build.returncode
    if code != 0:
        raise BinariesError(
            f"building the control plane failed (exit code {code}). Go fetches modules from"
            f" GOPROXY={environ.get('GOPROXY', '(its default)')}: is it reachable? Mend it,"
            f" {_INSTEAD}. The end of the build's output:\n{build.tail()}"
        )


class _Progress:
    """Says on stderr what takes so long: at once, then every few seconds, on one line if it can."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = time.monotonic()
        self._next = 0.0
        self._rewrites = sys.stderr.isatty()

    def told(self, *, done: bool) -> bool:
        """Hand `done` back, and say that it is not; to be called often."""
        elapsed = time.monotonic() - self._started
        if not done and elapsed >= self._next:
            self._next = elapsed + (1.0 if self._rewrites else 10.0)
            line = f"{self._what} ... {elapsed:.0f} s"
            sys.stderr.write(f"\r{line}" if self._rewrites else f"{line}\n")
            sys.stderr.flush()
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rewrites and self._next:
            sys.stderr.write("\n")
