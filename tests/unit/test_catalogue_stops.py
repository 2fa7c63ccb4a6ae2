"""A catalogue in MongoDB is in nobody's way when a replica stops."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from warmpool.effects.clock import SystemClock
from warmpool.effects.mongo import GOODBYE, MongoCatalogue
from warmpool.embed import candidate
from warmpool.embed.candidate import Candidate
from warmpool.planning.catalogue import checked
from warmpool.reconcile.replicas import Registration
from warmpool.settings import Settings


class Hung:
    """A shelf whose connections do not end."""

    asked = False

    async def close(self) -> None:
        self.asked = True
        await asyncio.Event().wait()


@pytest.mark.looptime
async def test_connections_that_hang_are_left() -> None:
    began = asyncio.get_running_loop().time()
    await MongoCatalogue(cast(Any, Hung()), checked).close()
    assert asyncio.get_running_loop().time() - began == pytest.approx(GOODBYE)


@pytest.mark.looptime
async def test_connections_end_though_the_listing_of_the_replica_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf = Hung()

    async def fails(_: object) -> None:
        raise RuntimeError("withdrawn from")

    monkeypatch.setattr(Registration, "withdraw", fails)
    catalogue = MongoCatalogue(cast(Any, shelf), checked)
    monkeypatch.setattr(candidate, "open_catalogue", lambda _: catalogue)
    nothing = cast(Any, None)
    telling = SimpleNamespace(metrics=SimpleNamespace(nova_call=nothing), emit=nothing)
    one = Candidate(
        Settings(),
        identity="r-1",
        store=nothing,
        cluster=nothing,
        clock=SystemClock(),
        vitals=nothing,
        telling=cast(Any, telling),
    )
    with pytest.raises(RuntimeError, match="withdrawn from"):
        await one.run()
    assert shelf.asked
