"""Builds this repository's programs in Go, and keeps them in a cache of the user's.

The cache is shared by all checkouts, and keyed by what goes into the build. Entries appear by a
rename, whole or not at all; one process builds while others wait.
"""

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from warmpool.tools.processes import Process, wait_until

BUILD_WITHIN = 3600.0
"""Seconds for a build, or for another's: minutes are usual, on a busy laptop many of them."""
BUILD_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
BUILD_ENVIRONMENT = {"CGO_ENABLED": "0", "GOWORK": "off"}
"""No C compiler is needed, and no workspace file above the checkout changes what is built."""


class BinariesError(Exception):
    """There are no programs to start; the text names the remedy."""


@dataclass(frozen=True, slots=True)
class GoProgram:
    """A program of this repository's."""

    name: str
    """Its folder under `tools/`, and its file's name."""
    called: str
    """What messages call it."""
    takes: str
    """How long its build takes, in words."""
    instead: str
    """Remedies for who cannot build it."""
    flags: tuple[str, ...] = ()
    """Further flags of `go build`: a part of the cache's key."""
    derived: Callable[[Path], tuple[str, ...]] = lambda _: ()
    """More of them, by where its sources are. They follow from these, which are in the key."""


def ensure_built(program: GoProgram, environ: Mapping[str, str]) -> Path:
    """The cached binary, built first if there is none for these sources and this Go.

    Raises:
        BinariesError: no sources, no Go, or the build failed.
    """
    source = source_directory(program)
    key = cache_key(source_files(source), go_platform(program, environ), program.flags)
    target = cache_root(program, environ) / key / program.name
    if not target.exists():
        target.parent.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(program, target.parent):
            if not target.exists():
                _build_into(target.parent, program, environ)
    return target


def source_directory(program: GoProgram) -> Path:
    directory = Path(__file__).resolve().parents[3] / "tools" / program.name
    if not (directory / "go.mod").exists():
        raise BinariesError(
            f"{program.called} is built in a checkout of warmpool: use one, {program.instead}"
        )
    return directory


def source_files(source: Path) -> dict[str, bytes]:
    """All that goes into the build, by file name."""
    paths = [source / "go.mod", source / "go.sum", *source.glob("*.go")]
    return {path.name: path.read_bytes() for path in paths}


def cache_root(program: GoProgram, environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(base) / "warmpool" / program.name


def cache_key(files: Mapping[str, bytes], platform: str, flags: Sequence[str] = ()) -> str:
    """Changes with a file's name or content, the Go that builds, and the program's own flags.

    With nothing else: `BUILD_FLAGS` say how Go builds, and not what.
    """
    digest = hashlib.sha256(platform.encode())
    for flag in flags:
        digest.update(f"\0flag\0{len(flag)}\0{flag}".encode())
    for name, content in sorted(files.items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:24]


def go_platform(program: GoProgram, environ: Mapping[str, str]) -> str:
    """The Go that would build it, and for what: `go1.26.8 linux amd64`.

    Raises:
        BinariesError: no Go, or one too old that may not fetch the one it needs.
    """
    command = [_go(program, environ), "env", "GOVERSION", "GOOS", "GOARCH"]
    source = source_directory(program)
    answer = subprocess.run(
        command, cwd=source, env=dict(environ), capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise BinariesError(f"`go env` failed: {answer.stderr.strip()}; mend Go, {program.instead}")
    return " ".join(answer.stdout.split())


def _go(program: GoProgram, environ: Mapping[str, str]) -> str:
    if go := shutil.which("go", path=environ.get("PATH")):
        return go
    raise BinariesError(
        f"Go is not on PATH, and it builds {program.called}: install it, {program.instead}"
    )


@contextlib.contextmanager
def _only_one(program: GoProgram, entry: Path) -> Iterator[None]:
    """Hold the lock of a cache entry; it is the kernel's, so a dead builder's is free again."""
    with entry.with_name(f"{entry.name}.lock").open("w") as lock:
        with _Progress(f"waiting for another process to build {program.called}") as progress:
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


def _build_into(entry: Path, program: GoProgram, environ: Mapping[str, str]) -> None:
    for leftover in entry.parent.glob(f".{entry.name}.*"):  # of a builder that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}."))
    try:
        _build(fresh / program.name, program, environ)
        fresh.chmod(0o755)
        fresh.rename(entry)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _build(target: Path, program: GoProgram, environ: Mapping[str, str]) -> None:
    source = source_directory(program)
    flags = (*BUILD_FLAGS, *program.flags, *program.derived(source))
    command = [_go(program, environ), "build", *flags, "-o", str(target), "."]
    log = target.with_name("build.log")
    what = f"building {program.called} (once per version, {program.takes})"
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
            f"building {program.called} failed (exit code {code}). Go fetches modules from"
            f" GOPROXY={environ.get('GOPROXY', '(its default)')}: is it reachable? Mend it,"
            f" {program.instead}. The end of the build's output:\n{build.tail()}"
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
