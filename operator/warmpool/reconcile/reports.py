"""What people are shown of history: each report is a question or two to wherever it is kept.

A report is plain JSON: numbers, texts, times as ISO 8601, spans in seconds. It is the same from
every store.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from warmpool.domain.history import Facet, Record, RecordKind, Result
from warmpool.domain.history_text import as_object
from warmpool.domain.ids import Ref
from warmpool.domain.spans import percentile
from warmpool.ports.history import PAGE, Group, History, Wanted

Json = dict[str, Any]

BARS: Final = 48
"""Spans of time in a picture, about."""

WIDTHS: Final = tuple(
    timedelta(minutes=minutes) for minutes in (1, 5, 15, 30, 60, 180, 360, 720, 1440, 10080)
)

PARTS: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Scope:
    """What a report is about."""

    since: datetime
    until: datetime
    pool: Ref | None = None
    """None: all pools."""

    def wanted(self, kind: RecordKind, **more: frozenset[str]) -> Wanted:
        where = {Facet.KIND: frozenset({kind.value})}
        if self.pool is not None:
            where[Facet.POOL] = frozenset({str(self.pool)})
        where |= {Facet(name): values for name, values in more.items()}
        return Wanted(self.since, self.until, where)

    @property
    def width(self) -> timedelta:
        """Of one bar: round, and not too many."""
        least = (self.until - self.since) / BARS
        return next((width for width in WIDTHS if width >= least), WIDTHS[-1])


async def builds(history: History, scope: Scope) -> Json:
    """Builds over time, what they took, and why they failed."""
    wanted = scope.wanted(RecordKind.BUILD)
    timed = await history.count(wanted, (Facet.RESULT, Facet.SPAN), every=scope.width)
    errors = await history.count(wanted, (Facet.RESULT, Facet.REASON))
    failed = frozenset({Result.FAILED.value, Result.REFUSED.value})
    recent = await history.find(scope.wanted(RecordKind.BUILD, result=failed), limit=50)
    ready = [(group, n) for group, n in timed.items() if group.values[0] == Result.READY]
    return {
        "width": scope.width.total_seconds(),
        "bars": _bars(timed),
        "took": _percentiles(ready),
        "results": _totals(timed),
        "errors": [
            {"result": group.values[0], "reason": group.values[1], "count": n}
            for group, n in sorted(errors.items(), key=lambda each: (-each[1], each[0].values))
            if group.values[0] != Result.READY
        ],
        "failures": _listed(recent),
    }


async def claims(history: History, scope: Scope, limit: int = PAGE) -> Json:
    """Claims with their answers, and what was short how often."""
    wanted = scope.wanted(RecordKind.CLAIM)
    counted = await history.count(wanted, (Facet.RESULT, Facet.REASON))
    waits = await history.count(wanted, (Facet.RESULT, Facet.SPAN))
    return {
        "waits": _percentiles([(g, n) for g, n in waits.items() if g.values[0] == Result.BOUND]),
        "reasons": [
            {"result": group.values[0], "reason": group.values[1], "count": n}
            for group, n in sorted(counted.items(), key=lambda each: (-each[1], each[0].values))
        ],
        "claims": _listed(await history.find(wanted, limit=limit)),
    }


async def removals(history: History, scope: Scope, limit: int = PAGE) -> Json:
    """VMs that left their pools: when, of what flavor, where they stood, for whom or why."""
    wanted = scope.wanted(RecordKind.REMOVAL)
    counted = await history.count(wanted, (Facet.REASON,))
    return {
        "reasons": [
            {"reason": group.values[0], "count": n}
            for group, n in sorted(counted.items(), key=lambda each: (-each[1], each[0].values))
        ],
        "removals": _listed(await history.find(wanted, limit=limit)),
    }


async def leaderships(history: History, scope: Scope) -> Json:
    """Who led when, the newest first: from before the scope on, since one began that was in it."""
    kind = frozenset({RecordKind.LEADERSHIP.value})
    found = await history.find(Wanted(until=scope.until, where={Facet.KIND: kind}))
    return {"changes": _listed(found)}


async def story(history: History, vm: Ref) -> Json:
    """All that is told of one VM, in its order."""
    found = await history.find(Wanted(where={Facet.VM: frozenset({str(vm)})}))
    return {"vm": str(vm), "records": _listed(reversed(found))}


def _listed(records: Iterable[Record]) -> list[Json]:
    return [as_object(record) for record in records]


def _bars(timed: Mapping[Group, int]) -> list[Json]:
    by_start: dict[datetime, list[tuple[Group, int]]] = defaultdict(list)
    for group, count in timed.items():
        if group.start is not None:
            by_start[group.start].append((group, count))
    return [
        {
            "start": start.isoformat(),
            "results": _totals(dict(groups)),
            "took": _percentiles([(g, n) for g, n in groups if g.values[0] == Result.READY]),
        }
        for start, groups in sorted(by_start.items())
    ]


def _totals(groups: Mapping[Group, int]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for group, count in groups.items():
        totals[group.values[0]] += count
    return dict(sorted(totals.items()))


def _percentiles(groups: Sequence[tuple[Group, int]]) -> dict[str, float | None]:
    """Of groups whose second value is the step of a span."""
    steps: Counter[int] = Counter()
    for group, count in groups:
        if group.values[1]:
            steps[int(group.values[1])] += count
    return {name: _rounded(percentile(steps, part)) for name, part in PARTS.items()}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
