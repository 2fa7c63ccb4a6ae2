"""Users who go on as they do while everything around them breaks: they claim, release and scale.

They reach the API server directly, and ask again when it does not answer, as a careful controller
would. A claim that was made, by their own word or only by the API server's, is waited for.
"""

import asyncio
import http
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import aiohttp

from harness.crew import now
from harness.history import Api, Record
from harness.storm import claim_of
from warmpool.api.names import Kind

Body = dict[str, Any]

EVERY: Final = 0.5
"""Seconds between two claims, on the average; a few come at once now and then."""

SCALE_EVERY: Final = 9.0
"""Seconds between two changes of a pool's size, on the average."""

AGAIN: Final = 0.2
"""Seconds until a request is repeated that was not answered."""

PATIENCE: Final = 150.0
"""Seconds for the answer to a claim: a run may have nobody lead for most of a minute."""


@dataclass(slots=True)
class Market:
    """Users of some pools."""

    client: Api
    record: Record
    namespace: str
    rng: random.Random
    sizes: Mapping[str, tuple[int, int]]
    """The least and the most `replicas` of each pool."""
    replicas: dict[str, int]
    """As they have been asked for."""
    posted: dict[str, float] = field(default_factory=dict)
    """When each claim was made, by name."""
    waits: list[float] = field(default_factory=list)
    """Seconds from each claim to its answer."""
    _number: int = 0

    async def trade(self, seconds: float) -> None:
        """Go on for so long, then wait until every claim has its answer."""
        ends = now() + seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._scale(ends))
            while now() < ends:
                await asyncio.sleep(self.rng.expovariate(1 / EVERY))
                for _ in range(self.rng.choice([1] * 12 + [6])):
                    tasks.create_task(self._claim(self.rng.randrange(2**32)))

    async def _claim(self, seed: int) -> None:
        """Make one claim, see its answer, and give the VMs back before long."""
        rng = random.Random(seed)  # noqa: S311 - a test's choices
        self._number += 1
        name = f"c-{self._number}"
        body = claim_of(rng, name, self.namespace, list(self.replicas))
        self.posted[name] = now()
        await insist(lambda: self.client.create(Kind.VM_CLAIM, self.namespace, body), CONFLICT)
        await self.record.until(lambda: name in self._claims(), 60, f"claim {name} is shown")
        if rng.random() < 0.05:
            await self._delete(name)
            return
        await self.record.until(lambda: self._phase(name) != "Pending", PATIENCE, f"answer: {name}")
        self.waits.append(now() - self.posted[name])
        if rng.random() < 0.95:
            await asyncio.sleep(rng.choice([0.0, rng.uniform(0, 3), rng.uniform(0, 12)]))
            await self._delete(name)

    async def _delete(self, name: str) -> None:
        await insist(
            lambda: self.client.delete(Kind.VM_CLAIM, self.namespace, name),
            http.HTTPStatus.NOT_FOUND,
        )

    async def _scale(self, ends: float) -> None:
        """Give pools other sizes now and then."""
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / SCALE_EVERY))
            if now() >= ends:
                return
            pool = self.rng.choice(list(self.sizes))
            self.replicas[pool] = self.rng.randint(*self.sizes[pool])
            patch = {"spec": {"replicas": self.replicas[pool]}}
            await insist(partial(self.client.merge, Kind.WARM_POOL, self.namespace, pool, patch))

    def _claims(self) -> dict[str, Body]:
        return {c["metadata"]["name"]: c for c in self.record.now[Kind.VM_CLAIM].values()}

    def _phase(self, name: str) -> str:
        """Of a claim; `Gone` if it is."""
        claim = self._claims().get(name, {"status": {"phase": "Gone"}})
        return str(claim.get("status", {}).get("phase", "Pending"))


CONFLICT: Final = http.HTTPStatus.CONFLICT
RETRIED: Final = (http.HTTPStatus.TOO_MANY_REQUESTS, http.HTTPStatus.UNAUTHORIZED)


async def insist(
    work: Callable[[], Awaitable[object]], done: http.HTTPStatus | None = None
) -> None:
    """Ask until it is done. `done`: the refusal that says that it was done before.

    Raises:
        aiohttp.ClientResponseError: it is refused for another reason.
    """
    while True:
        try:
            await work()
        except aiohttp.ClientResponseError as error:
            if error.status == done:
                return
            if error.status < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.status not in RETRIED:
                raise
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        else:
            return
        await asyncio.sleep(AGAIN)
