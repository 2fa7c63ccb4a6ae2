"""Whoever is done with the API server leaves no connection open behind."""

import socket

import pytest
from aiohttp.connector import AddrInfoType

from warmpool.effects.kube import WARM, Credentials, KubeCluster
from warmpool.effects.sockets import Sockets
from warmpool.tools.controlplane import ControlPlane

pytestmark = pytest.mark.integration


class Remembered(Sockets):
    """Sockets that a test can look at, too."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[socket.socket] = []

    def __call__(self, address: AddrInfoType) -> socket.socket:
        self.all.append(made := super().__call__(address))
        return made


async def test_a_connection_that_says_goodbye_is_waited_for(control_plane: ControlPlane) -> None:
    """The session is closed, its connection is not yet, and a loop that ended now would leave it.

    In the middle of an answer nobody can tell aiohttp to cut one, and at its end it does not wait.
    """
    credentials, sockets = await Credentials.load(str(control_plane.kubeconfig)), Remembered()
    headers = {"Authorization": f"Bearer {await credentials.token()}"}
    url = credentials.endpoint.server + "/api/v1/namespaces"
    session = credentials.session(1, sockets)
    answer = await session.get(url, params={"watch": "true"}, headers=headers)
    await answer.content.readline()
    answer.close()
    await session.close()
    assert [one.fileno() < 0 for one in sockets.all] == [False]
    await sockets.hang_up()
    assert [one.fileno() < 0 for one in sockets.all] == [True]


async def test_connections_that_are_open_are_used_again(control_plane: ControlPlane) -> None:
    cluster = KubeCluster(await Credentials.load(str(control_plane.kubeconfig)), "default")
    sockets = cluster._sockets = Remembered()
    async with cluster:
        await cluster.warm()
        assert len(sockets.all) == WARM
        await cluster.warm()
        assert len(sockets.all) == WARM
