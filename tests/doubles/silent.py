"""A server that takes connections and never answers, and programs that are to end all the same."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from warmpool.tools.crds import ROOT


@contextmanager
def silent_server() -> Iterator[str]:
    """Its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def ends_within(seconds: float, program: str) -> None:
    """Run a program that prints a line when it begins to end; that must not take longer."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=env, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ending\n"
    async with asyncio.timeout(seconds):
        assert await process.wait() == 0
