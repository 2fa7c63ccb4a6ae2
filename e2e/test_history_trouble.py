"""Where history is kept is away, its spool is full, the disk is full: claims do not notice.

Each test has operators of its own, with settings of their own, while the shared ones are down.
"""

import asyncio
import contextlib
import re
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from harness.elastic import elastic
from harness.fleet import LEASE, Fleet
from harness.sandbox import Sandbox

from doubles.history import a_history
from doubles.silent import silent_server
from warmpool.domain.history import ClaimRecord, Record
from warmpool.domain.history_text import from_text, to_text
from warmpool.effects.spool import SqliteSpool
from warmpool.tools.cluster import Cluster
from warmpool.tools.processes import wait_until

SECONDS = 60.0
MEGABYTE = 1 << 20
DISK_MB = 16
REFUSED = 150
"""Claims whose records do not fit into what the databases have of the disk already."""
CALM = 6
"""Looks at the metrics, each of them some tenths of a second."""


@contextlib.contextmanager
def operator(
    cluster: Cluster, kubeconfig: Path, directory: Path, name: str, **env: str
) -> Iterator[Fleet]:
    """One that leads, with more settings."""
    settings = {**LEASE, **{f"WARMPOOL_{key.upper()}": value for key, value in env.items()}}
    fleet = Fleet(cluster, kubeconfig, directory, name=name, env=settings)
    try:
        fleet.ensure(1)
        yield fleet
    finally:
        fleet.stop()


def spooled(directory: Path) -> list[Record]:
    """What is in the spool, the oldest first. The operator may write it meanwhile."""
    with contextlib.closing(sqlite3.connect(directory / "spool.sqlite", timeout=10)) as database:
        rows = database.execute("SELECT body FROM spool ORDER BY seq").fetchall()
    return [from_text(body) for (body,) in rows]


def claims_of(records: list[Record], namespace: str) -> set[str]:
    """The claims of a namespace that have their answer."""
    of_claims = (r.claim for r in records if isinstance(r, ClaimRecord))
    return {claim.name for claim in of_claims if claim.namespace == namespace}


def lost(fleet: Fleet) -> int:
    """Records that had to be dropped, as the metrics say."""
    found = re.search(r"^warmpool_history_lost_total (\S+)$", fleet.metrics(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def at_rest(fleet: Fleet, directory: Path) -> tuple[int, list[Record]]:
    """How many records are lost and which are spooled, once that has stayed so for a while."""
    seen: list[tuple[int, list[Record]]] = []

    def calm() -> bool:
        seen.append((lost(fleet), spooled(directory)))
        return len(seen) >= CALM and all(each == seen[-1] for each in seen[-CALM:])

    wait_until(calm, timeout=SECONDS, what="an end of new records")
    return seen[-1]


async def filled(directory: Path, records: Sequence[Record]) -> None:
    """A spool with records of former days."""
    spool = SqliteSpool(directory / "spool.sqlite", max_bytes=1 << 30)
    await spool.put(records)
    await spool.close()


def test_elasticsearch_away_a_full_spool_and_kill_9_lose_what_the_bound_says_and_no_more(
    cluster: Cluster, fleet: Fleet, sandbox: Sandbox, tmp_path: Path
) -> None:
    pool, before, directory = sandbox.full_pool("data", 4), a_history(3000), tmp_path / "history"
    asyncio.run(filled(directory, before))
    fleet.stop()
    names = {f"told-{n}" for n in range(4)}
    kept_in = {"history_dir": str(directory), "spool_megabytes": "1"}

    def spooled_claims() -> bool:
        return claims_of(spooled(directory), sandbox.namespace) >= names

    with silent_server() as url:
        away = {**kept_in, "elasticsearch_url": url}
        with operator(cluster, fleet.kubeconfig, tmp_path, "away", **away) as one:
            for name in sorted(names):
                assert len(sandbox.bound(name, {pool: 1})) == 1
            wait_until(spooled_claims, timeout=SECONDS, what="all claims in the spool")
            dropped, left = at_rest(one, directory)
            one.leader().kill()
            assert "records of history are lost: the spool is full" in one.log()
    former = {record.id for record in before}
    assert sum(r.id in former for r in left) == len(before) - dropped, "the oldest, and no others"
    assert sum(len(to_text(record).encode()) for record in left) <= MEGABYTE
    after = {record.id for record in spooled(directory)}
    gone = [record.id for record in left if record.id not in after]
    more = after - {record.id for record in left}
    assert gone == [record.id for record in left[: len(gone)]], "kill -9 takes none of them, but"
    assert more or not gone, "what came since takes the place of the oldest"

    with elastic() as back:
        there = {**kept_in, "elasticsearch_url": back.url}
        with operator(cluster, fleet.kubeconfig, tmp_path, "back", **there) as one:
            wait_until(lambda: not spooled(directory), timeout=SECONDS, what="an empty spool")
            assert lost(one) == 0
        assert after <= back.kept.keys()
        assert claims_of(list(back.kept.values()), sandbox.namespace) >= names


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)  # noqa: S607


def test_a_full_disk_slows_no_claim_and_loses_no_record(
    cluster: Cluster, fleet: Fleet, sandbox: Sandbox, tmp_path: Path, small_disk: Path
) -> None:
    pool, ballast = sandbox.full_pool("data", 2), small_disk / "ballast"
    refused = {f"refused-{n:03}" for n in range(REFUSED)}
    fleet.stop()
    where = {"history_dir": str(small_disk / "history")}

    def told() -> set[str]:
        """Claims in the history itself, which begins with the first record."""
        file = small_disk / "history" / "history.sqlite"
        with contextlib.closing(sqlite3.connect(file, timeout=10)) as database:
            tables = database.execute("SELECT name FROM sqlite_master").fetchall()
            begun = ("records",) in tables
            rows = database.execute("SELECT body FROM records").fetchall() if begun else []
        return claims_of([from_text(body) for (body,) in rows], sandbox.namespace)

    with operator(cluster, fleet.kubeconfig, tmp_path, "full", **where) as one:
        sandbox.bound("before", {pool: 1})
        wait_until(lambda: told() == {"before"}, timeout=SECONDS, what="a claim in the history")
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        sandbox.bound("meanwhile", {pool: 1})
        sandbox.apply(*(sandbox.claim_manifest(name, {pool: 50}) for name in refused))
        wait_until(
            lambda: re.search(r"history is kept in the spool for now: .*full", one.log()),
            timeout=SECONDS,
            what="the full disk in the log",
        )
        ballast.unlink()
        names = {"before", "meanwhile", *refused}
        wait_until(lambda: told() == names, timeout=SECONDS, what="all claims in the history")
        assert lost(one) == 0
