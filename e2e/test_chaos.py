"""Everything goes wrong at once, for minutes, and at every revision all must be as it must be.

    pytest -s e2e/test_chaos.py --minutes 10 --seed 7

Three replicas on a control plane of their own, each behind a proxy. They are killed, stopped and
cut off, the API server is restarted and hangs, the cloud fails and lies, while users claim, release
and scale. Then all of it ends, everything settles, and three witnesses are heard: etcd's whole
history, the API server's audit log and the cloud's journal. What holds is told in
docs/testing.md.
"""

import asyncio
import contextlib
import json
import random
import secrets
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import audit
from harness.clouds import Simulator
from harness.crew import Crew
from harness.etcd import Etcd
from harness.fleet import LEASE, install
from harness.history import Api, Event
from harness.leading import Court, Finding, Terms, blind_since
from harness.market import Market
from harness.monkey import NAMES, Deed, Monkey, schedule
from harness.proxy import Proxy
from harness.replay import Replay, Verdict
from harness.sandbox import Sandbox
from harness.servers import (
    Sizes,
    built_at,
    crowded,
    doubles,
    forgotten,
    left_behind,
    servers_of,
    untouched,
)

from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER, Kind
from warmpool.tools.controlplane import ControlPlane
from warmpool.tools.processes import tail

pytestmark = pytest.mark.simulator

Body = dict[str, Any]

WORLD = Path(__file__).parent / "storm_world.yaml"
REPLICAS = 3
RESERVE = 3
"""Of `data`, for claims of priority 1000."""

POOLS: dict[str, Body] = {
    "data": {"replicas": 30, "maxSize": 55, "maxConcurrent": 8, "reserve": RESERVE},
    "master": {"replicas": 15, "maxSize": 25, "maxConcurrent": 6, "reclaimPolicy": "Recycle"},
}
SIZES = {"data": (20, 40), "master": (8, 18)}

SETTLED_WITHIN = 120.0
"""Seconds until all is well again. A pool backs off for up to 45 s from a cloud that refused."""

SWEPT_WITHIN = 200.0
"""Seconds until a server that was left behind is gone: it has to be seen for a minute first."""

FOREIGN = 6
"""Servers in the cloud that are none of ours, of each sort."""


@dataclass(slots=True)
class Stage:
    """All that a run needs."""

    control_plane: ControlPlane
    sandbox: Sandbox
    cloud: Simulator
    record: Etcd
    crew: Crew
    monkey: Monkey
    client: Api
    folder: Path

    def largest(self) -> dict[str, int]:
        """`maxSize` of each pool, by its whole name."""
        return {self.sandbox.named(short): spec["maxSize"] for short, spec in POOLS.items()}

    def installation(self) -> str:
        [ledger] = self.record.now[Kind.BINDING_LEDGER].values()
        return str(ledger["spec"]["installation"])

    def there(self) -> set[str]:
        """Ids of the servers that Nova has."""
        return {server["id"] for server in self.cloud.records()}

    def last_words(self, identity: str) -> str:
        """That a process has ended which nobody had asked to, and what it said."""
        return f"{identity} died by itself:\n{tail(self.folder / f'{identity}.log', 25)}"

    def holder(self) -> str:
        """Who has written the ledger last."""
        ledgers = list(self.record.now[Kind.BINDING_LEDGER].values())
        return str(ledgers[0]["spec"]["holder"]) if ledgers else ""


@dataclass(slots=True)
class Judgement:
    """What the witnesses say together."""

    faults: list[str]
    figures: Counter[str]
    verdict: Verdict


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the evidence is: gone afterwards, unless something was found."""
    made = Path(tempfile.mkdtemp(prefix="warmpool-chaos-"))
    yield made
    if not (made / "found").exists():
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
async def stage(folder: Path) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        control_plane = ControlPlane(apiserver_args=audit.arguments(folder))
        await asyncio.to_thread(control_plane.start)
        stack.callback(control_plane.stop)
        await asyncio.to_thread(install, control_plane)
        cloud = await asyncio.to_thread(Simulator, folder, world=WORLD)
        stack.callback(cloud.stop)
        cloud.zones = ("az1", "az2", "az3")
        client = await stack.enter_async_context(Api(control_plane.kubeconfig))
        record = Etcd(control_plane.etcd_url)
        await stack.enter_async_context(recording(record))
        crew = Crew(control_plane, client, folder)
        stack.callback(crew.stop)
        for _ in range(REPLICAS):
            crew.add(stack.enter_context(Proxy(client.server)))
        monkey = Monkey(crew, control_plane, cloud)
        sandbox = Sandbox(control_plane, cloud)
        made = Stage(control_plane, sandbox, cloud, record, crew, monkey, client, folder)
        crew.holder = made.holder
        yield made


@contextlib.asynccontextmanager
async def recording(record: Etcd) -> AsyncIterator[None]:
    started = asyncio.Event()
    watching = asyncio.ensure_future(record.run(started))
    await started.wait()
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching  # raises what it has died of


async def open_stage(stage: Stage) -> Market:
    """Servers of others, all replicas, and pools that are full."""
    sandbox, cloud = stage.sandbox, stage.cloud
    for tags in ([], [f"{TAG_INSTALLATION}another", f"{TAG_OWNER}{secrets.token_hex(8)}"]):
        name = f"{sandbox.named('data')}-alien"
        await asyncio.to_thread(cloud.preload, count=FOREIGN, name=name, tags=tags)
    await asyncio.to_thread(sandbox.create)
    await stage.crew.heal()
    for short, spec in POOLS.items():
        await asyncio.to_thread(sandbox.pool, short, health={}, **spec)
    for short, spec in POOLS.items():
        await asyncio.to_thread(sandbox.await_ready, sandbox.named(short), spec["replicas"])
    return Market(
        stage.client,
        stage.record,
        sandbox.namespace,
        random.Random(),  # noqa: S311 - seeded by the test
        {sandbox.named(short): sizes for short, sizes in SIZES.items()},
        {sandbox.named(short): spec["replicas"] for short, spec in POOLS.items()},
    )


def is_settled(stage: Stage, market: Market) -> bool:
    """All claims have their answer, and every pool is as it shall be."""
    now = stage.record.now
    vms, claims = now[Kind.WARM_VM].values(), now[Kind.VM_CLAIM]
    held = [vm for vm in vms if "claimRef" in vm["spec"]]
    return (
        not any(b["spec"].get("entries") for b in now[Kind.BINDING_LEDGER].values())
        and not any("deletionTimestamp" in vm["metadata"] for vm in vms)
        and all(vm["spec"]["claimRef"]["uid"] in claims for vm in held)
        and all(c.get("status", {}).get("phase", "Pending") != "Pending" for c in claims.values())
        and all(_is_full(stage, market, pool) for pool in market.replicas)
    )


def _is_full(stage: Stage, market: Market, pool: str) -> bool:
    """As many free VMs as it shall have, or as it may have beside those that are claimed."""
    vms = stage.record.now[Kind.WARM_VM].values()
    mine = [vm for vm in vms if vm["spec"]["poolRef"]["name"] == pool]
    free = [vm for vm in mine if "claimRef" not in vm["spec"]]
    room = stage.largest()[pool] - (len(mine) - len(free))
    ready = all(vm.get("status", {}).get("phase") == "Ready" for vm in free)
    return ready and len(free) == min(market.replicas[pool], room)


async def settle(stage: Stage, market: Market) -> list[str]:
    """Wait until all is well, and what was left behind is swept; what did not come to rest."""
    record = stage.record

    def is_swept() -> bool:
        servers = servers_of(stage.cloud.journal(), stage.there())
        return not left_behind(servers, record.events) and not doubled(servers)

    swept = "every server without a WarmVM is gone"
    try:
        await record.until(lambda: is_settled(stage, market), SETTLED_WITHIN, "everything settled")
        await record.until(is_swept, SWEPT_WITHIN, swept)
    except TimeoutError as error:
        return [f"it does not come to rest: {error}"]
    return []


def doubled(servers: list[Any]) -> bool:
    """Whether a WarmVM has two servers now."""
    owners = Counter(s.owner for s in servers if s.gone == float("inf"))
    return any(count > 1 for count in owners.values())


def judge(stage: Stage) -> Judgement:
    """Hear all witnesses."""
    events = sorted(stage.record.events, key=lambda event: event.revision)
    journal = stage.cloud.journal()
    finding, writers = who_wrote(stage, events)
    reserves = {stage.sandbox.named("data"): RESERVE}
    blind = partial(blind_since, stage.monkey.troubles)
    verdict = Replay(events, reserves, writers, blind).run()
    late = {w.name for w in finding.late if (w.verb, w.what) == ("create", "warmvms")}
    sizes = Sizes(events, late, built_at(journal))
    sizes.run()
    servers = servers_of(journal, stage.there())
    faults = [*verdict.faults, *finding.faults, *sizes.faults]
    faults += forgotten(events)
    faults += untouched(journal, stage.installation())
    faults += crowded(servers, stage.largest())
    figures = verdict.figures + finding.figures + sizes.figures
    figures |= Counter({"servers": len(servers), "servers beside another": doubles(servers)})
    return Judgement(faults, figures, verdict)


def who_wrote(stage: Stage, events: list[Event]) -> tuple[Finding, dict[int, str]]:
    """I7, and the author of every revision, as far as the audit log knows it."""
    text = audit.log_in(stage.folder).read_text(encoding="utf-8", errors="replace")
    writes, known = audit.read(text), stage.crew.identities
    terms = Terms(writes, known, float(LEASE["WARMPOOL_LEASE_DEADLINE_SECONDS"]))
    court = Court(terms, known, stage.monkey.troubles)
    ledger = [event for event in events if event.kind is Kind.BINDING_LEDGER]
    finding = court.judge(writes, ledger)
    done = [w for w in writes if w.carried_out and w.revision is not None]
    return finding, {w.revision: known.get(w.credential, "") for w in done if w.revision}


def told(stage: Stage, market: Market, deeds: list[Deed], judgement: Judgement) -> str:
    """The figures of a run."""
    waits = sorted(market.waits)
    kinds = Counter(trouble.kind for trouble in stage.monkey.troubles)
    figures: Body = dict(sorted(judgement.figures.items()))
    figures["events"] = len(stage.record.events)
    figures["deeds"] = f"{len(deeds)}: {dict(sorted(kinds.items()))}"
    figures["processes"] = len(stage.crew.identities)
    figures["seconds to the answer"] = {
        "p50": round(statistics.median(waits), 3),
        "p90": round(waits[len(waits) * 9 // 10], 3),
        "max": round(waits[-1], 3),
    }
    return json.dumps(figures, indent=1)


def keep_evidence(stage: Stage, deeds: list[Deed], faults: list[str]) -> str:
    """Leave all of it in the folder; what led to the first faults."""
    (stage.folder / "found").write_text("\n".join(faults), encoding="utf-8")
    history = stage.folder / "history.jsonl"
    with history.open("w", encoding="utf-8") as file:
        for event in stage.record.events:
            line = {"revision": event.revision, "at": event.at, "kind": event.kind.value}
            file.write(json.dumps(line | {"gone": event.gone, "body": event.body}) + "\n")
    troubles = "\n".join(str(trouble) for trouble in stage.monkey.troubles)
    (stage.folder / "troubles").write_text(troubles, encoding="utf-8")
    (stage.folder / "journal.json").write_text(json.dumps(stage.cloud.journal()), encoding="utf-8")
    logs = "\n".join(f"--- {log.stem}\n{tail(log, 15)}" for log in stage.crew.logs()[-4:])
    return "\n".join([*faults[:20], *map(str, deeds), logs, f"all of it is in {stage.folder}"])


async def test_nothing_is_lost_or_doubled_whatever_happens(
    stage: Stage, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = 60 * pytestconfig.getoption("--minutes")
    seed = pytestconfig.getoption("--seed") or secrets.randbits(32)
    only = (pytestconfig.getoption("--deeds") or "").split(",")
    deeds = schedule(
        random.Random(seed),  # noqa: S311 - a test's choices
        seconds,
        [name for name in only if name] or NAMES,
    )
    with capsys.disabled():
        print(f"\nchaos, seed {seed}: {len(deeds)} deeds in {seconds:.0f} s", flush=True)
    faults = ["the run did not come to its end"]
    try:
        market = await open_stage(stage)
        market.rng.seed(seed)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.monkey.rage(deeds))
            tasks.create_task(market.trade(seconds))
        restless = await settle(stage, market)
        judgement = await asyncio.to_thread(judge, stage)
        faults = restless + judgement.faults
        faults += [stage.last_words(identity) for identity in stage.crew.look()]
        with capsys.disabled():
            print(told(stage, market, deeds, judgement))
    finally:
        if faults:
            with capsys.disabled():
                print(f"seed {seed}:\n{keep_evidence(stage, deeds, faults)}")
    assert faults == [], f"seed {seed}"
    assert judgement.figures["takeovers"] > 1
    assert judgement.figures["bound"] > 0
