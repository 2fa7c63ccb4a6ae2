"""Probes over real sockets of the loopback network."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from warmpool.api.v1alpha1.pool import HTTPGet, Scheme
from warmpool.effects import probe
from warmpool.effects.probe import NetworkProber

HERE = "127.0.0.1"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def listening(answer: bytes | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers so to a request, or never; its port, and what it was asked."""
    asked: list[bytes] = []
    hung = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is None:
                await hung.wait()
            else:
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, HERE, 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        hung.set()
        server.close()
        await server.wait_closed()


async def an_unused_port() -> int:
    async with listening(b"") as (port, _):
        return port


async def test_a_port_that_is_open_is_up() -> None:
    async with listening(b"") as (port, _):
        assert await NetworkProber().tcp(HERE, port) == ""


async def test_a_port_that_is_closed_is_told() -> None:
    port = await an_unused_port()
    assert await NetworkProber().tcp(HERE, port) == f"port {port} refuses connections"


@pytest.mark.parametrize("status", [200, 204, 302, 399])
async def test_a_page_that_is_answered_well_is_up(status: int) -> None:
    async with listening(b"HTTP/1.1 %d Fine\r\n\r\n" % status) as (port, asked):
        ask = HTTPGet(port=port, path="/up?now=1")
        assert await NetworkProber().http(HERE, ask) == ""
    (request,) = asked
    assert request.startswith(b"GET /up?now=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)


@pytest.mark.parametrize("status", [199, 400, 404, 500, 503])
async def test_a_page_that_is_answered_badly_is_told_with_its_status(status: int) -> None:
    async with listening(b"HTTP/1.0 %d \r\n\r\nbody" % status) as (port, _):
        said = await NetworkProber().http(HERE, HTTPGet(port=port))
    assert said == f"port {port} answers {status} to /"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n", "does not speak HTTP", id="no http"),
        pytest.param(b"", "does not answer HTTP", id="hangs up"),
        pytest.param(b"x" * 100_000, "does not answer HTTP", id="a line without end"),
    ],
)
async def test_what_is_no_answer_is_told(answer: bytes, said: str) -> None:
    async with listening(answer) as (port, _):
        assert await NetworkProber().http(HERE, HTTPGet(port=port)) == f"port {port} {said}"


async def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROBE_TIMEOUT", 0.05)
    async with listening(None) as (port, _):
        said = await NetworkProber().http(HERE, HTTPGet(port=port))
    assert said == f"port {port} does not answer HTTP"


async def test_https_asked_of_plain_http_is_told() -> None:
    async with listening(b"HTTP/1.1 200 OK\r\n\r\n") as (port, _):
        said = await NetworkProber().http(HERE, HTTPGet(port=port, scheme=Scheme.HTTPS))
    assert said in {f"port {port} refuses HTTPS connections", f"port {port} does not answer HTTPS"}


def test_the_certificate_of_a_fresh_vm_is_taken_as_it_is() -> None:
    context = NetworkProber()._tls
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
