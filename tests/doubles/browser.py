"""Chromium without a window, spoken to over its own protocol."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from warmpool.tools.processes import Process, free_ports

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

START_WITHIN = 60.0


def chromium() -> str | None:
    """Where Chromium is; None: nowhere."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self.complaints: list[str] = []
        """What went wrong in the page so far."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            said = json.loads((await self._socket.receive()).data)
            if said.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(said["params"]))
            if said.get("id") == number:
                assert "error" not in said, said
                found: dict[str, Any] = said["result"]
                return found

    async def window(self, width: int, height: int, scheme: str) -> None:
        """`scheme`: light or dark."""
        size = {"width": width, "height": height}
        await self.call(
            "Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=width < 600
        )
        wish = {"name": "prefers-color-scheme", "value": scheme}
        await self.call("Emulation.setEmulatedMedia", features=[wish])

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def js(self, expression: str) -> Any:
        """What an expression is."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, expression: str, within: float = 60.0) -> Any:
        """Wait until an expression is true; what it is."""
        async with asyncio.timeout(within):
            while not (found := await self.js(expression)):  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.1)
        return found


@asynccontextmanager
async def browser(directory: Path) -> AsyncIterator[Browser]:
    """A browser with nothing remembered."""
    program = chromium()
    assert program is not None
    (port,) = free_ports(1)
    own = (f"--user-data-dir={directory / 'profile'}", f"--remote-debugging-port={port}")
    command = [program, *FLAGS, *own, "about:blank"]
    process = Process.start(command, log=directory / "chromium.log")
    try:
        async with aiohttp.ClientSession() as session:
            url = await _tab(session, f"http://127.0.0.1:{port}/json")
            async with session.ws_connect(url, max_msg_size=1 << 28) as socket:
                opened = Browser(socket)
                for domain in ("Runtime", "Log", "Page"):
                    await opened.call(f"{domain}.enable")
                yield opened
    finally:
        await asyncio.to_thread(process.kill)


async def _tab(session: aiohttp.ClientSession, url: str) -> str:
    async with asyncio.timeout(START_WITHIN):
        while True:
            try:
                async with session.get(url) as answer:
                    tabs = await answer.json()
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
            else:
                return str(next(t for t in tabs if t["type"] == "page")["webSocketDebuggerUrl"])
