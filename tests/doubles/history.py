"""Records by the thousand, and stores of them that fail when told to."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from builders import NOW, a_place
from warmpool.api.names import Reason
from warmpool.domain.history import (
    AskRecord,
    BuildRecord,
    ClaimRecord,
    Facet,
    LeadershipRecord,
    Machine,
    Phases,
    Record,
    ReleaseRecord,
    RemovalRecord,
    Result,
)
from warmpool.domain.ids import Ref
from warmpool.ports.history import Cursor, Group, HistoryUnavailable, Refused, Wanted

LEADERS = ("replica-a", "replica-b", "replica-c")


def a_build(number: int = 1, **fields: object) -> BuildRecord:
    """A build that succeeded at `NOW`."""
    facts: dict[str, object] = {
        "id": f"build:vm-{number}:1",
        "at": NOW,
        "vm": a_machine(number),
        "image": "debian-13",
        "result": Result.READY,
        "attempt": 1,
        "took": 60.0,
        "phases": Phases(0.001, 0.3, 2.0, 50.0, 7.0, 0.02),
    }
    return BuildRecord(**(facts | fields))  # type: ignore[arg-type]


def a_machine(number: int = 1, pool: Ref | None = None) -> Machine:
    """The VM `search/data-<number>`, unless the pool is another."""
    pool = pool or Ref("search", "data")
    ref = Ref(pool.namespace, f"{pool.name}-{number}")
    place = a_place(1 + number % 40, rack=f"r{1 + number % 10}", zone=f"az{1 + number % 2}")
    return Machine(f"vm-{pool.name}-{number}", ref, pool, f"server-{number}", "m1.micro", place)


def a_history(count: int, *, seed: int = 1, pools: int = 20) -> list[Record]:
    """That many records of all kinds up to `NOW`, over 30 days."""
    chance = random.Random(seed)  # noqa: S311 - test data
    kinds = ("build", "removal", "claim", "release", "leadership")
    weights = (40, 30, 15, 14, 1)
    return [
        _one(number, kind, chance, pools)
        for number, kind in enumerate(chance.choices(kinds, weights, k=count))
    ]


def _one(number: int, kind: str, chance: random.Random, pools: int) -> Record:
    at = NOW - timedelta(milliseconds=chance.randrange(30 * 86_400_000))
    pool = Ref("search", f"pool-{chance.randrange(pools)}")
    vm, claim = a_machine(number, pool), Ref("logs", f"claim-{number}")
    span = round(chance.lognormvariate(3.5, 0.8), 3)
    match kind:
        case "build":
            return _build(number, at, vm, span, chance)
        case "removal":
            bound = chance.random() < 0.8
            why = Reason.BOUND if bound else chance.choice((Reason.TOO_OLD, Reason.UNHEALTHY))
            uid = f"uid-{number}" if bound else ""
            ident = f"removal:{number}:{uid}"
            return RemovalRecord(ident, at, vm, why, claim if bound else None, uid, span * 60)
        case "claim":
            return _claim(number, at, pool, chance)
        case "release":
            return ReleaseRecord(f"release:{number}", at, vm, claim, f"uid-{number}", "Delete")
    result = chance.choice((Result.BEGAN, Result.ENDED))
    led = span * 1000 if result is Result.ENDED else None
    who = chance.choice(LEADERS)
    return LeadershipRecord(f"leadership:{number}", at, who, number, result, led)


def _build(
    number: int, at: datetime, vm: Machine, span: float, chance: random.Random
) -> BuildRecord:
    build = a_build(number, id=f"build:{number}", at=at, vm=vm, took=span)
    if chance.random() < 0.9:
        return build
    failed = {"result": Result.FAILED, "blame": "vm", "message": "it did not answer"}
    reason = chance.choice((Reason.LAUNCH_TIMEOUT, Reason.BUILD_FAULT, Reason.PROBE_FAILED))
    return a_build(
        number, id=build.id, at=at, vm=vm, took=span, reason=reason, phases=Phases(), **failed
    )


def _claim(number: int, at: datetime, pool: Ref, chance: random.Random) -> ClaimRecord:
    bound = chance.random() < 0.95
    return ClaimRecord(
        id=f"claim:{number}",
        at=at,
        claim=Ref("logs", f"claim-{number}"),
        uid=f"uid-{number}",
        asks=(AskRecord("data", pool, 1 + number % 15),),
        mode=chance.choice(("BestEffort", "RackAware")),
        on_unsatisfied="Fail",
        result=Result.BOUND if bound else Result.REFUSED,
        reason=Reason.BOUND if bound else Reason.NOT_ENOUGH_RACKS,
        message="3 racks" if bound else "3 racks have ready VMs, 5 are needed",
        wait=round(chance.lognormvariate(-3.5, 0.6), 3),
    )


class MemoryHistory:
    """Keeps records in a list, while it is up."""

    def __init__(self) -> None:
        self.up = True
        self.kept: dict[str, Record] = {}
        self.appends = 0
        self.refuses: set[str] = set()

    async def append(self, records: Sequence[Record]) -> Sequence[Refused]:
        self.appends += 1
        if not self.up:
            raise HistoryUnavailable("it is down")
        for record in records:
            if record.id not in self.refuses:
                self.kept.setdefault(record.id, record)
        return [Refused(r.id, "cannot be mapped") for r in records if r.id in self.refuses]

    async def find(
        self, wanted: Wanted, *, limit: int = 500, after: Cursor | None = None
    ) -> Sequence[Record]:
        raise NotImplementedError

    async def count(
        self, wanted: Wanted, by: Sequence[Facet] = (), *, every: timedelta | None = None
    ) -> Mapping[Group, int]:
        raise NotImplementedError

    async def close(self) -> None:
        pass
