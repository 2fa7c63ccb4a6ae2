"""The proxy that other journeys break connections with does what it says."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness.proxy import SLOWNESS, Mode, Proxy

from warmpool.tools.processes import wait_until

SOON = 5.0
SILENCE = 0.3
"""Seconds in which an answer on the loopback interface would have come."""


@pytest.fixture
def echo() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of a server that answers what it is sent, and what it was sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while data := connection.recv(100):
                    heard.append(data)
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}", heard
        server.shutdown(socket.SHUT_RDWR)


def connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=SOON)


def echoes(client: socket.socket, text: bytes) -> bool:
    client.sendall(text)
    return client.recv(100) == text


@pytest.mark.parametrize("mode", [Mode.PASS, Mode.HANG])
def test_nothing_stays_open_that_was_connected_as_it_stopped(
    echo: tuple[str, list[bytes]], mode: Mode
) -> None:
    """It hung, or left sockets to the garbage collector."""
    for _ in range(10):
        with Proxy(echo[0]) as proxy:
            proxy.turn(mode)
            clients = [connected(proxy) for _ in range(5)]
            for client in clients:
                client.sendall(b"hello")
        for client in clients:
            with client, contextlib.suppress(ConnectionResetError):
                assert client.recv(100) in (b"", b"hello")


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SILENCE)
    try:
        client.recv(100)
    except TimeoutError:
        return True
    finally:
        client.settimeout(SOON)
    return False


def test_bytes_pass_and_a_cut_resets_what_is_open(echo: tuple[str, list[bytes]]) -> None:
    with Proxy(echo[0]) as proxy, connected(proxy) as client:
        assert echoes(client, b"one")
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        with connected(proxy) as another:
            assert echoes(another, b"two")
        assert proxy.served == 2


def test_a_hang_holds_bytes_until_it_is_over(echo: tuple[str, list[bytes]]) -> None:
    url, heard = echo
    with Proxy(url) as proxy, connected(proxy) as client:
        assert echoes(client, b"one")
        proxy.hang()
        client.sendall(b"two")
        with connected(proxy) as another:
            another.sendall(b"three")
            assert is_silent(client)
            assert is_silent(another)
            assert heard == [b"one"]
            proxy.heal()
            assert client.recv(100) == b"two"
            assert another.recv(100) == b"three"


def test_the_deaf_are_heard_and_hear_nothing(echo: tuple[str, list[bytes]]) -> None:
    url, heard = echo
    with Proxy(url) as proxy, connected(proxy) as client:
        assert echoes(client, b"one")
        proxy.deafen()
        client.sendall(b"two")
        assert is_silent(client)
        assert heard == [b"one", b"two"]
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_the_dumb_are_heard_when_it_is_over(echo: tuple[str, list[bytes]]) -> None:
    url, heard = echo
    with Proxy(url) as proxy, connected(proxy) as client:
        assert echoes(client, b"one")
        proxy.turn(Mode.DUMB)
        client.sendall(b"two")
        assert is_silent(client)
        assert heard == [b"one"]
        proxy.heal()
        assert client.recv(100) == b"two"


def test_who_is_refused_is_refused_until_it_is_over(echo: tuple[str, list[bytes]]) -> None:
    with Proxy(echo[0]) as proxy, connected(proxy) as client:
        assert echoes(client, b"one")
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        with pytest.raises(ConnectionResetError), connected(proxy) as another:
            another.recv(100)
        proxy.heal()
        with connected(proxy) as another:
            assert echoes(another, b"two")


def test_what_is_held_arrives_though_who_sent_it_is_dead(echo: tuple[str, list[bytes]]) -> None:
    url, heard = echo
    with Proxy(url) as proxy, connected(proxy) as client:
        assert echoes(client, b"one")
        proxy.hang()
        client.sendall(b"last words")
        assert is_silent(client)
        client.close()
        assert heard == [b"one"]
        proxy.heal()
        wait_until(lambda: heard == [b"one", b"last words"], timeout=SOON, what="the last words")


def test_what_is_swallowed_is_lost_and_its_connection_with_it(
    echo: tuple[str, list[bytes]],
) -> None:
    url, heard = echo
    with Proxy(url) as proxy, connected(proxy) as client, connected(proxy) as idle:
        assert echoes(client, b"one")
        proxy.turn(Mode.SWALLOW)
        client.sendall(b"two")
        assert is_silent(client)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        assert heard == [b"one"]
        assert echoes(idle, b"three")


def test_a_watch_lags_and_whoever_asks_is_answered() -> None:
    with socket.create_server(("127.0.0.1", 0)) as api, contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(f"https://127.0.0.1:{api.getsockname()[1]}"))
        client = stack.enter_context(connected(proxy))
        server, _ = api.accept()
        stack.callback(server.close)
        client.sendall(b"watch")
        assert server.recv(100) == b"watch"
        server.sendall(b"one")
        assert client.recv(100) == b"one"
        proxy.turn(Mode.LAG)
        server.sendall(b"two")
        assert is_silent(client)
        proxy.heal()
        assert client.recv(100) == b"two"


def test_while_watches_lag_connections_that_are_kept_open_are_served(
    echo: tuple[str, list[bytes]],
) -> None:
    with Proxy(echo[0]) as proxy, connected(proxy) as client:
        assert echoes(client, b"one")
        proxy.turn(Mode.LAG)
        assert echoes(client, b"two")
        with connected(proxy) as another:
            assert echoes(another, b"three")


def test_what_is_slow_arrives_all_the_same(echo: tuple[str, list[bytes]]) -> None:
    with Proxy(echo[0]) as proxy, connected(proxy) as client:
        proxy.turn(Mode.SLOW)
        began = time.monotonic()
        assert echoes(client, b"one")
        assert time.monotonic() - began >= 2 * SLOWNESS


def test_a_server_that_is_not_there_is_a_lost_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        Proxy(f"https://127.0.0.1:{port}") as proxy,
        pytest.raises(ConnectionResetError),
        connected(proxy) as client,
    ):
        client.recv(100)


def test_a_kubeconfig_leads_through_it(echo: tuple[str, list[bytes]], tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.write_text(yaml.safe_dump({"clusters": [{"name": "x", "cluster": {"server": "y"}}]}))
    with Proxy(echo[0]) as proxy:
        copy = proxy.kubeconfig(original, tmp_path / "copy")
        [entry] = yaml.safe_load(copy.read_text())["clusters"]
        assert entry == {"name": "x", "cluster": {"server": proxy.url}}
