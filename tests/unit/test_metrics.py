"""Metrics, and the alerts that ask for them."""

import asyncio
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from builders import POOL, a_pool, a_pool_body
from doubles.history import a_build, a_history
from warmpool.api.names import Kind, Reason
from warmpool.domain.errors import Conflict
from warmpool.domain.history import AskRecord, ClaimRecord, RecordKind, Result
from warmpool.domain.ids import Ref
from warmpool.effects.metrics import Metrics
from warmpool.handlers import scrapes
from warmpool.ports.cluster import Cluster
from warmpool.ports.metrics import PoolSample, Sample
from warmpool.ports.reviews import Reviews
from warmpool.reconcile.metering import LAG_EVERY, Metered, Refills, measure_lag, pool_samples
from warmpool.reconcile.store import Store
from warmpool.sim.clock import LoopClock
from warmpool.tools.crds import ROOT

RULES = ROOT / "manifests" / "prometheus" / "alerts.yaml"

SAMPLE = Sample(
    leads=True,
    pools=(PoolSample(POOL, 40, {"ready": 36, "claimed": 2}, {"any": 32, "racks": 5}),),
    claims_waiting=1,
    spool_records=7,
    history_lost=3,
)


def metrics(sample: Sample = SAMPLE) -> Metrics:
    return Metrics(lambda: sample)


def value(under: Metrics, name: str, **labels: str) -> float:
    """The value of one series; 0 if there is none."""
    for family in text_string_to_metric_families(under.scrape()().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0.0


def test_gauges_are_as_the_sample_of_this_moment_says() -> None:
    under, pool = metrics(), {"namespace": "search", "pool": "data"}
    assert value(under, "warmpool_leader") == 1
    assert value(under, "warmpool_pool_wanted", **pool) == 40
    assert value(under, "warmpool_pool_vms", **pool, state="ready") == 36
    assert value(under, "warmpool_pool_claimable", **pool, mode="racks") == 5
    assert value(under, "warmpool_claims_waiting") == 1
    assert value(under, "warmpool_history_spooled") == 7
    assert value(under, "warmpool_history_lost_total") == 3


async def test_what_is_scraped_is_of_the_moment_and_may_be_rendered_in_a_thread() -> None:
    taken: list[int] = []

    def sample() -> Sample:
        taken.append(threading.get_ident())
        return SAMPLE

    under = Metrics(sample)
    async with scrapes.serving(
        under.scrape, cast("Reviews", None), LoopClock(), "127.0.0.1", 0
    ) as url:
        for _ in range(2):
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                assert "warmpool_pool_wanted{" in await answer.text()
    assert taken == [threading.get_ident()] * 2, "the store is the loop's own"


def test_a_pool_that_is_not_there_has_no_series_whoever_asks_for_it() -> None:
    under = metrics()
    claim = next(record for record in a_history(1000) if isinstance(record, ClaimRecord))
    for number in range(3):
        asks = (AskRecord(name="data", pool=Ref("search", f"none-{number}"), count=1),)
        under.record(replace(claim, asks=asks, reason=Reason.POOL_NOT_FOUND, result=Result.REFUSED))
    assert "none-" not in under.scrape()().decode()
    asks = (AskRecord(name="data", pool=Ref("search", "there"), count=1),)
    under.record(replace(claim, asks=asks, reason=Reason.BOUND))
    assert 'pool="there"' in under.scrape()().decode()


def test_records_are_counted() -> None:
    under, records = metrics(), a_history(1000)
    for record in records:
        under.record(record)
    families = {f.name: f for f in text_string_to_metric_families(under.scrape()().decode())}

    def total(name: str) -> float:
        return sum(s.value for s in families[name].samples if s.name == f"{name}_total")

    for name, kind in (
        ("warmpool_builds", RecordKind.BUILD),
        ("warmpool_claims", RecordKind.CLAIM),
        ("warmpool_removals", RecordKind.REMOVAL),
        ("warmpool_releases", RecordKind.RELEASE),
        ("warmpool_leaderships", RecordKind.LEADERSHIP),
    ):
        assert total(name) == sum(r.kind is kind for r in records), name


def test_a_build_is_counted_with_its_phases() -> None:
    under = metrics()
    under.record(a_build())
    pool = {"namespace": "search", "pool": "data", "result": "ready", "reason": ""}
    assert value(under, "warmpool_builds_total", **pool) == 1
    assert value(under, "warmpool_build_seconds_sum", result="ready") == 60
    assert value(under, "warmpool_build_phase_seconds_sum", phase="spawning") == 50


def test_every_label_is_of_a_closed_set_but_for_pools() -> None:
    under = metrics()
    for record in a_history(2000):
        under.record(record)
    free = {"namespace", "pool"}
    for family in text_string_to_metric_families(under.scrape()().decode()):
        for label in {k for s in family.samples for k in s.labels} - free - {"le"}:
            assert len({s.labels[label] for s in family.samples}) <= 12, (family.name, label)


# --- what is measured ---------------------------------------------------------------------------


class Refusing:
    async def patch(self, *_: object, **__: object) -> None:
        raise Conflict("no")

    async def replace(self, _kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        return body


async def test_writes_are_measured_by_what_came_of_them() -> None:
    under = metrics()
    cluster = Metered(cast("Cluster", Refusing()), under, LoopClock())
    with pytest.raises(Conflict):
        await cluster.patch(Kind.VM_CLAIM, Ref("a", "b"), [], status=True)
    await cluster.replace(Kind.BINDING_LEDGER, {"spec": {"entries": ["one", "two"]}})
    refused = {"verb": "patch status", "kind": "VMClaim", "outcome": "Conflict"}
    assert value(under, "warmpool_api_write_seconds_count", **refused) == 1
    written = {"verb": "replace", "kind": "BindingLedger", "outcome": "ok"}
    assert value(under, "warmpool_api_write_seconds_count", **written) == 1
    assert value(under, "warmpool_ledger_entries_sum") == 2


@pytest.mark.looptime
@pytest.mark.parametrize("counts", [True, False])
async def test_a_refill_lasts_from_not_full_to_full(counts: bool) -> None:
    store, under = Store(), metrics()
    store.listen(Refills(store, LoopClock(), under, lambda: counts).changed)

    def say(version: int, ready: int) -> None:
        body = a_pool_body(POOL, replicas=3)
        body["metadata"]["resourceVersion"] = str(version)
        store.apply(Kind.WARM_POOL, {**body, "status": {"ready": ready}})

    for version, ready in enumerate((3, 1, 2, 3, 3), 1):
        say(version, ready)
        await asyncio.sleep(10)
    pool = {"namespace": "search", "pool": "data"}
    assert value(under, "warmpool_refill_seconds_count", **pool) == counts
    assert value(under, "warmpool_refill_seconds_sum", **pool) == pytest.approx(20 * counts)


@pytest.mark.looptime
async def test_the_loop_is_seldom_late() -> None:
    under = metrics()
    measuring = asyncio.ensure_future(measure_lag(LoopClock(), under))
    await asyncio.sleep(10 * LAG_EVERY + 0.1)
    measuring.cancel()
    assert value(under, "warmpool_loop_lag_seconds_count") == 10


def test_pools_are_sampled_as_their_statuses_say() -> None:
    store = Store()
    body = a_pool_body(POOL, replicas=3)
    store.apply(Kind.WARM_POOL, {**body, "status": {"ready": 2, "building": 1}})
    (sample,) = pool_samples(store)
    assert (sample.ref, sample.wanted) == (a_pool().ref, 3)
    assert sample.counts == {"ready": 2, "building": 1, "claimed": 0, "failed": 0, "retained": 0}


# --- alerts -------------------------------------------------------------------------------------


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    assert document["kind"] == "PrometheusRule"
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def asked_for(expression: str) -> set[str]:
    """Metrics of an expression, without what histograms append."""
    found = re.findall(r"\bwarmpool_[a-z_]+", expression)
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in found}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    under = metrics()
    for record in a_history(500):
        under.record(record)
    under.nova_call("create server", 0.1, "ok")
    labels = {
        label
        for family in text_string_to_metric_families(under.scrape()().decode())
        for sample in family.samples
        for label in sample.labels
    } | {"instance"}
    assert asked_for(rule["expr"])
    assert asked_for(rule["expr"]) <= under.described().keys()
    named = re.findall(r"([a-z_]+)(?:=|!=)\"", rule["expr"])
    grouped = [
        label for by in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in by.split(",")
    ]
    told = re.findall(r"\$labels\.([a-z]+)", str(rule["annotations"]))
    assert {name.strip() for name in [*named, *grouped, *told]} <= labels


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_tells_who_is_on_call_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
def test_promtool_finds_nothing_wrong(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(RULES.read_text())["spec"]))
    subprocess.run([shutil.which("promtool") or "", "check", "rules", str(file)], check=True)  # noqa: S603 - found above


def test_every_metric_is_described_in_the_docs() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    missing = [name for name in metrics().described() if f"`{name}`" not in text]
    assert not missing
    assert set(re.findall(r"`(warmpool_[a-z_]+)`", text)) <= metrics().described().keys()
