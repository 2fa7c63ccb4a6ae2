"""`warmpool status`: what people and scripts read about the replicas."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from warmpool.cli.status import Status, as_json, as_table
from warmpool.reconcile.replicas import Leader, Member

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def a_member(identity: str, *, role: str = "standby", **seen: float) -> Member:
    seen_at, lasts = ago(**(seen or {"seconds": 12})), timedelta(seconds=90)
    return Member(
        identity, role, "0.1.0", f"node-{identity}", ago(hours=26, minutes=5), seen_at, lasts
    )


def a_leader(identity: str = "one", *, changes: int = 3, **seen: float) -> Leader:
    seen_at = ago(**(seen or {"seconds": 1}))
    return Leader(identity, ago(minutes=5, seconds=12), seen_at, timedelta(seconds=10), changes)


def test_a_table_says_who_is_there_and_who_leads() -> None:
    members = (a_member("one"), a_member("two"), a_member("three", minutes=3))
    assert as_table(Status(a_leader(), members, NOW)).splitlines() == [
        "one leads, for 5m12s; 3 changes of leader so far.",
        "REPLICA   ROLE      VERSION   HOST         UP     SEEN",
        "one       leader    0.1.0     node-one     1d2h   12s ago",
        "two       standby   0.1.0     node-two     1d2h   12s ago",
        "three     gone      0.1.0     node-three   1d2h   3m ago",
    ]


@pytest.mark.parametrize(
    ("leader", "headline"),
    [
        (None, "Nobody leads."),
        (
            a_leader(changes=1, minutes=2),
            "Nobody leads: one has not renewed its lease for 2m; 1 change of leader so far.",
        ),
    ],
    ids=["released", "run-out"],
)
def test_nobody_leads(leader: Leader | None, headline: str) -> None:
    status = Status(leader, (a_member("one", role="leader"),), NOW)
    assert as_table(status).splitlines()[0] == headline
    assert status.led is False
    assert json.loads(as_json(status))["replicas"][0]["role"] == "standby"


def test_scripts_get_json() -> None:
    told = json.loads(as_json(Status(a_leader("one"), (a_member("one"),), NOW)))
    assert told["led"] is True
    assert told["leader"] == {
        "identity": "one",
        "since": "2030-01-01T11:54:48+00:00",
        "seen": "2030-01-01T11:59:59+00:00",
        "changes": 3,
    }
    assert told["replicas"] == [
        {
            "identity": "one",
            "role": "leader",
            "version": "0.1.0",
            "host": "node-one",
            "since": "2029-12-31T09:55:00+00:00",
            "seen": "2030-01-01T11:59:48+00:00",
        }
    ]
