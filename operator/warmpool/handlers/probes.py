"""`/livez` and `/readyz`, for the kubelet and whoever else asks.

A server of our own, since kopf's answers 200 whatever its probes say, begins only when kopf has
logged in, and ends with it. It runs in the loop that it tells of: when that is blocked there is no
answer, and that is an answer too.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from aiohttp import web

from warmpool.handlers.listening import listening
from warmpool.reconcile.vitals import Turn, Vitals


@asynccontextmanager
async def serving(vitals: Vitals, address: str, port: int) -> AsyncIterator[str]:
    """Answer while inside; the URL, without a path. Port 0 is one that is free.

    Raises:
        OSError: the address or the port cannot be had.
    """

    async def live(_request: web.Request) -> web.Response:
        return _liveness(vitals.turns())

    async def ready(_request: web.Request) -> web.Response:
        return _readiness(vitals.lacks())

    app = web.Application()
    app.add_routes([web.get("/livez", live), web.get("/readyz", ready)])
    async with listening(app, address, port) as url:
        yield url


def _liveness(turns: list[Turn]) -> web.Response:
    stuck = [f"{turn.name} hangs: {_told(turn)}" for turn in turns if turn.stuck]
    rest = [f"{turn.name}: {_told(turn)}" for turn in turns if not turn.stuck]
    return _answer(stuck, rest)


def _told(turn: Turn) -> str:
    return f"turned {turn.ago:.1f} s ago, {turn.within:g} s are allowed"


def _readiness(lacks: list[str]) -> web.Response:
    return _answer([f"not ready: {lack}" for lack in lacks], [])


def _answer(wrong: list[str], rest: list[str]) -> web.Response:
    """What is wrong comes first: the kubelet shows the beginning."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
    return web.Response(status=status, text="\n".join([*(wrong or ["ok"]), *rest, ""]))
