"""A server of MongoDB's wire protocol for tests: FerretDB over SQLite, on loopback.

It has what a catalogue needs (reads, upserts by name, unique indexes) and neither authentication,
transactions nor change streams. Built by `python -m warmpool.tools.mongodb build`.
"""

import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from warmpool.tools.cluster import default_environ
from warmpool.tools.gobuild import BinariesError, GoProgram, ensure_built
from warmpool.tools.processes import Process, free_ports

START_WITHIN: Final = 120.0
"""Seconds; a tenth of one is usual."""


PROGRAM: Final = GoProgram(
    name="mongodb",
    called="the MongoDB server for tests",
    takes="about a minute",
    instead="or set MONGODB_URI to a server that tests may write to",
    flags=("-tags", "ferretdb_no_postgresql", "-ldflags", "-s -w"),
)


class MongoServer:
    """A server that runs from `start` to `stop`. What it held is there again the next time."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        """Its data and its log stand in the directory.

        Raises:
            BinariesError: it cannot be built.
        """
        self._directory = directory
        self._binary = ensure_built(PROGRAM, environ)
        [self._port] = free_ports(1)
        self._process: Process | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self._port}/"

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        data = self._directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [self._binary, f"127.0.0.1:{self._port}", str(data)]
        self._process = Process.start(command, log=self._directory / "mongodb.log")
        try:
            self._process.wait_for(self._listens, START_WITHIN, "MongoDB's port")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            self._process.kill()
        self._process = None

    def pause(self) -> None:
        """Connections stay open and nothing answers."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        if self._process is not None:
            self._process.resume()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _listens(self) -> bool | None:
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=2).close()
        except OSError:
            return None
        return True


def open_mongodb(directory: Path) -> MongoServer:
    """A server of our own, not yet started.

    Raises:
        BinariesError: it cannot be built.
    """
    return MongoServer(directory, default_environ())


def main(argv: Sequence[str]) -> int:
    if list(argv) != ["build"]:
        print("usage: python -m warmpool.tools.mongodb build", file=sys.stderr)
        return 2
    try:
        ensure_built(PROGRAM, default_environ())
    except BinariesError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
