"""What every store of records promises, held against each of them."""

import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from builders import NOW, after
from doubles.history import a_build, a_history
from warmpool.domain.history import Facet, Record, RecordKind, Result, facets
from warmpool.domain.ids import Ref
from warmpool.domain.spans import percentile
from warmpool.effects.elastic import ElasticHistory, ElasticLogin
from warmpool.effects.history_sqlite import SqliteHistory
from warmpool.ports.history import Cursor, Group, History, Wanted
from warmpool.reconcile import reports
from warmpool.reconcile.reports import Scope
from warmpool.sim.clock import LoopClock

AGES = timedelta(days=36500)


@pytest.fixture(
    params=["sqlite", "memory", pytest.param("elasticsearch", marks=pytest.mark.integration)]
)
async def history(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[History]:
    opened: History
    if request.param == "elasticsearch":
        url: str = request.getfixturevalue("elasticsearch_url")
        stream = f"history-{uuid.uuid4().hex}"
        opened = ElasticHistory(ElasticLogin((url,)), stream, max_age=None, at_once=True)
    else:
        path = tmp_path / "history.sqlite" if request.param == "sqlite" else None
        opened = SqliteHistory(path, LoopClock(), max_age=AGES, max_bytes=1 << 30)
    yield opened
    await opened.close()


def newest_first(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda r: (r.at, r.id), reverse=True)


async def everything(history: History, wanted: Wanted, page: int) -> list[Record]:
    found: list[Record] = []
    after_: Cursor | None = None
    while True:
        more = await history.find(wanted, limit=page, after=after_)
        found.extend(more)
        if len(more) < page:
            return found
        after_ = Cursor(more[-1].at, more[-1].id)


async def test_what_was_appended_is_found_as_it_was_the_newest_first(history: History) -> None:
    records = a_history(300)
    assert list(await history.append(records)) == []
    assert list(await history.find(Wanted())) == newest_first(records)


async def test_a_record_that_comes_again_is_no_second_one(history: History) -> None:
    first = a_build(1, took=60.0)
    await history.append([first, a_build(2)])
    assert list(await history.append([a_build(1, took=99.0), a_build(3)])) == []
    found = await history.find(Wanted())
    assert len(found) == 3
    assert first in found


async def test_one_batch_may_hold_a_record_twice(history: History) -> None:
    await history.append([a_build(1), a_build(1)])
    assert len(await history.find(Wanted())) == 1


async def test_nothing_is_appended_and_nothing_found(history: History) -> None:
    assert list(await history.append([])) == []
    assert list(await history.find(Wanted())) == []
    assert dict(await history.count(Wanted(), (Facet.POOL,))) == {}


async def test_pages_go_on_where_they_ended_though_times_are_the_same(history: History) -> None:
    records: list[Record] = [a_build(n, at=after(n // 4)) for n in range(25)]
    await history.append(records)
    assert await everything(history, Wanted(), page=7) == newest_first(records)


async def test_time_is_from_a_moment_on_and_before_another(history: History) -> None:
    records: list[Record] = [a_build(n, at=after(n)) for n in range(5)]
    await history.append(records)
    found = await history.find(Wanted(since=after(1), until=after(3)))
    assert [r.at for r in found] == [after(2), after(1)]


async def test_facets_choose_among_values_and_hold_together(history: History) -> None:
    records = a_history(400)
    await history.append(records)
    where = {
        Facet.KIND: frozenset({RecordKind.BUILD.value, RecordKind.CLAIM.value}),
        Facet.RESULT: frozenset({Result.FAILED.value, Result.REFUSED.value}),
    }
    expected = [
        r for r in records if all(facets(r).get(f, "") in among for f, among in where.items())
    ]
    assert expected
    assert list(await history.find(Wanted(where=where))) == newest_first(expected)


async def test_the_empty_value_is_of_those_that_have_none(history: History) -> None:
    records = a_history(200)
    await history.append(records)
    lacking = [r for r in records if Facet.VM not in facets(r)]
    found = await history.find(Wanted(where={Facet.VM: frozenset({""})}))
    assert list(found) == newest_first(lacking)
    counted = await history.count(Wanted(), (Facet.REASON,))
    assert counted[Group(None, ("",))] == sum(Facet.REASON not in facets(r) for r in records)


async def test_one_vms_story_is_all_that_names_it(history: History) -> None:
    records = a_history(300)
    await history.append(records)
    vm = next(facets(r)[Facet.VM] for r in records if Facet.VM in facets(r))
    found = await history.find(Wanted(where={Facet.VM: frozenset({vm})}))
    assert found
    assert all(facets(r)[Facet.VM] == vm for r in found)


async def test_counts_are_of_facets_and_of_time(history: History) -> None:
    records = a_history(500)
    await history.append(records)
    builds = Wanted(where={Facet.KIND: frozenset({"build"})})
    day = timedelta(days=1)
    found = await history.count(builds, (Facet.RESULT, Facet.ZONE), every=day)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = Counter(
        Group(
            r.at - (r.at - epoch) % day,
            (facets(r)[Facet.RESULT], facets(r)[Facet.ZONE]),
        )
        for r in records
        if r.kind is RecordKind.BUILD
    )
    assert dict(found) == dict(expected)


async def test_counts_by_span_tell_percentiles(history: History) -> None:
    await history.append([a_build(n, took=float(n)) for n in range(1, 101)])
    counted = await history.count(Wanted(), (Facet.SPAN,))
    steps = {int(group.values[0]): count for group, count in counted.items()}
    assert percentile(steps, 0.9) == pytest.approx(90, rel=0.05)


async def test_without_facets_and_time_there_is_one_number(history: History) -> None:
    await history.append([a_build(n) for n in range(7)])
    assert dict(await history.count(Wanted())) == {Group(None, ()): 7}


async def test_times_are_kept_to_the_millisecond(history: History) -> None:
    at = NOW.replace(microsecond=123_000)
    await history.append([a_build(1, at=at)])
    (found,) = await history.find(Wanted(since=at, until=at + timedelta(milliseconds=1)))
    assert found.at == at


async def test_texts_are_kept_whatever_is_in_them(history: History) -> None:
    record = a_build(1, message="it's \"no\" valid\nhöst 💥 '); DROP TABLE records; --")
    await history.append([record])
    assert list(await history.find(Wanted())) == [record]


async def test_names_with_odd_letters_are_found(history: History) -> None:
    vm = a_build(1).vm
    odd = type(vm)(vm.uid, Ref("näm,es pace", "a/b"), vm.pool)
    await history.append([a_build(1, vm=odd)])
    found = await history.find(Wanted(where={Facet.VM: frozenset({str(odd.ref)})}))
    assert len(found) == 1


async def test_many_are_counted_exactly(history: History) -> None:
    records = a_history(3000)
    await history.append(records)
    counted = await history.count(Wanted(), (Facet.POOL, Facet.RACK, Facet.SPAN))
    assert sum(counted.values()) == 3000
    expected = Counter(
        tuple(facets(r).get(f, "") for f in (Facet.POOL, Facet.RACK, Facet.SPAN)) for r in records
    )
    assert {group.values: count for group, count in counted.items()} == dict(expected)


async def test_reports_are_the_same_from_every_store(history: History) -> None:
    records, memory = (
        a_history(4000),
        SqliteHistory(None, LoopClock(), max_age=AGES, max_bytes=1 << 30),
    )
    for first in range(0, 4000, 500):
        await history.append(records[first : first + 500])
        await memory.append(records[first : first + 500])
    for pool in (None, Ref("search", "pool-3")):
        scope = Scope(NOW - timedelta(days=20), NOW - timedelta(days=1), pool)
        for report in (reports.builds, reports.claims, reports.removals, reports.leaderships):
            assert await report(history, scope) == await report(memory, scope)
    for record in records[:20]:
        if Facet.VM in facets(record):
            vm = Ref(*facets(record)[Facet.VM].split("/"))
            assert await reports.story(history, vm) == await reports.story(memory, vm)
    await memory.close()
