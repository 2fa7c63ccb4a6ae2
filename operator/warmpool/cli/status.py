"""`warmpool status`: which replicas there are, and which one leads.

Told from the Leases in the operator's namespace alone: it answers when the operator is down, too.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from warmpool.api.names import LABEL_ROLE, LEASE_NAME
from warmpool.domain.errors import ClusterError, NotFound
from warmpool.effects.clock import SystemClock
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.reconcile.replicas import Leader, Member, read_leader, read_member

LED: Final = 0
NOT_LED: Final = 1
ERROR: Final = 2
"""Exit statuses: a replica leads; none does; the question could not be answered."""


@dataclass(frozen=True, slots=True)
class Status:
    """Who is there and who leads, at a moment of this machine's clock."""

    leader: Leader | None
    members: tuple[Member, ...]
    now: datetime

    @property
    def led(self) -> bool:
        """Somebody holds the Lease, and has renewed it in time."""
        leader = self.leader
        return leader is not None and not _silent(leader.seen, leader.lasts, self.now)

    def role(self, member: Member) -> str:
        """What a replica is: the Lease of the election has the last word on who leads."""
        if _silent(member.seen, member.lasts, self.now):
            return "gone"
        leads = self.led and self.leader is not None and self.leader.identity == member.identity
        return "leader" if leads else "standby"


def add_parser(commands: Any) -> None:
    """Add `status` to the subcommands of `warmpool`."""
    parser = commands.add_parser("status", help="which replicas are there, and which one leads?")
    parser.add_argument("-n", "--namespace", default="warmpool-system", help="of the operator")
    parser.add_argument("--kubeconfig", default=None, help="default: $KUBECONFIG")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer; exit status 0 if a replica leads, 1 if none does, 2 if it cannot be told."""
    try:
        status = asyncio.run(_look(args.kubeconfig, args.namespace))
    except (OSError, ClusterError) as error:
        print(f"warmpool status: {error}", file=sys.stderr)
        return ERROR
    print(as_json(status) if args.output == "json" else as_table(status))
    return LED if status.led else NOT_LED


async def _look(kubeconfig: str | None, namespace: str) -> Status:
    path = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    async with KubeCluster(await Credentials.load(path), namespace) as cluster:
        try:
            leader = read_leader(await cluster.get_lease(LEASE_NAME))
        except NotFound:
            leader = None
        members = [read_member(lease) for lease in await cluster.list_leases(LABEL_ROLE)]
    members.sort(key=lambda member: member.identity)
    return Status(leader, tuple(members), SystemClock().now())


def as_json(status: Status) -> str:
    """For machines: times as RFC 3339."""
    leader = status.leader
    return json.dumps(
        {
            "led": status.led,
            "leader": None
            if leader is None
            else {
                "identity": leader.identity,
                "since": _iso(leader.since),
                "seen": _iso(leader.seen),
                "changes": leader.changes,
            },
            "replicas": [
                {
                    "identity": member.identity,
                    "role": status.role(member),
                    "version": member.version,
                    "host": member.host,
                    "since": _iso(member.since),
                    "seen": _iso(member.seen),
                }
                for member in status.members
            ],
        }
    )


def as_table(status: Status) -> str:
    """For people."""
    rows = [("REPLICA", "ROLE", "VERSION", "HOST", "UP", "SEEN")]
    for member in status.members:
        up, seen = _age(member.since, status.now), _age(member.seen, status.now)
        role = status.role(member)
        rows.append((member.identity, role, member.version, member.host, up, f"{seen} ago"))
    return "\n".join([_headline(status), *_lines(rows)])


def _headline(status: Status) -> str:
    leader = status.leader
    if leader is None:
        return "Nobody leads."
    changes = f"{leader.changes} change{'' if leader.changes == 1 else 's'} of leader so far"
    if not status.led:
        silent = _age(leader.seen, status.now)
        return f"Nobody leads: {leader.identity} has not renewed its lease for {silent}; {changes}."
    return f"{leader.identity} leads, for {_age(leader.since, status.now)}; {changes}."


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _silent(seen: datetime | None, lasts: timedelta, now: datetime) -> bool:
    return seen is None or now - seen > lasts


def _age(since: datetime | None, now: datetime) -> str:
    """As kubectl writes it: the two largest units."""
    if since is None:
        return "?"
    total = max(0, int((now - since).total_seconds()))
    parts = [(total // 86400, "d"), (total // 3600 % 24, "h"), (total // 60 % 60, "m")]
    shown = [f"{count}{unit}" for count, unit in (*parts, (total % 60, "s")) if count]
    return "".join(shown[:2]) or "0s"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
