"""`warmpool adopt POOL`: put servers that are there already under a pool.

Shows what would be adopted, and why the others would not; with `--yes` it is done. The pool must be
paused for that, else it would build meanwhile what it is about to be given.
"""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from warmpool.api.names import LEDGER_NAME, Kind
from warmpool.domain.adoption import Existing, Progress, Step, Verdict
from warmpool.domain.catalogue import Entry
from warmpool.domain.errors import CloudError, ClusterError, NotFound
from warmpool.domain.facts import Pool
from warmpool.domain.ids import InstallationId, Ref
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.effects.nova import open_cloud
from warmpool.effects.nova_estate import NovaEstate
from warmpool.planning.adoption import closed
from warmpool.planning.catalogue import entry_resolved
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.adoption import Adoption
from warmpool.reconcile.reading import read_pool
from warmpool.reconcile.session import CLOUDS_YAML

DONE: Final = 0
NOTHING: Final = 1
ERROR: Final = 2
"""Exit statuses: some can be or were adopted; none can; it could not be told or done."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is shown of one server."""

    verdict: Verdict
    step: Step | None


def add_parser(commands: Any) -> None:
    """Add `adopt` to the subcommands of `warmpool`."""
    parser = commands.add_parser("adopt", help="put servers that are there already under a pool")
    add = parser.add_argument
    add("pool", help="name of the WarmPool")
    add("-n", "--namespace", default="default", help="of the pool")
    add("--operator-namespace", default="warmpool-system", help="where the operator runs")
    add("--kubeconfig", default=None, help="default: $KUBECONFIG")
    add("--name", default="", metavar="REGEX", help="only servers whose name matches, all of it")
    add("--server", action="append", default=[], metavar="ID", help="only this; may be repeated")
    add("--yes", action="store_true", help="adopt them; without it, only show")
    add("-o", "--output", choices=("table", "json"), default="table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show or adopt; the exit status."""
    try:
        return asyncio.run(_run(args))
    except (OSError, ValueError, CloudError, ClusterError, re.error) as error:
        print(f"warmpool adopt: {error}", file=sys.stderr)
        return ERROR


async def _run(args: argparse.Namespace) -> int:
    path = args.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    credentials = await Credentials.load(path)
    async with KubeCluster(credentials, args.operator_namespace) as cluster:
        return await adopt(args, cluster)


async def adopt(args: argparse.Namespace, cluster: Cluster) -> int:
    """All of it, once the API server is there.

    Raises:
        ValueError: something is not as it has to be, and how it has to be.
        CloudError, ClusterError: somebody did not answer.
    """
    pool = read_pool(await _get(cluster, Kind.WARM_POOL, Ref(args.namespace, args.pool)))
    if (why_not := closed(pool)) and (args.yes or pool.deleting):
        raise ValueError(why_not)
    home = Ref(args.operator_namespace, LEDGER_NAME)
    ledger = await _get(cluster, Kind.BINDING_LEDGER, home)
    installation = InstallationId(ledger["spec"]["installation"])
    text = await _clouds_yaml(cluster, pool)
    cloud = open_cloud(text, pool.spec.cloud_ref.cloud, installation=installation)
    try:
        estate = NovaEstate(cloud, installation)
        pool, entry = as_it_builds(pool)
        zones = tuple(pool.spec.availability_zones)
        spec = await cloud.resolve(pool.spec.template, zones, entry)
        adoption = Adoption(pool, cloud.region, cluster, estate)
        survey = await adoption.survey(spec, _wanted(args))
        progress = await adoption.carry_out(survey) if args.yes else None
    finally:
        await cloud.close()
    rows = [Row(verdict, _step(verdict, progress)) for verdict in survey.verdicts]
    print(_json(rows) if args.output == "json" else _table(rows))
    if progress is not None and progress.stopped:
        print(f"warmpool adopt: {progress.stopped}", file=sys.stderr)
        return ERROR
    return DONE if any(row.step is not None for row in rows) else NOTHING


def _step(verdict: Verdict, progress: Progress | None) -> Step | None:
    """How far a server has come, or could come. None: the pool cannot take it, or has it."""
    if progress is not None and verdict.server in progress.steps:
        return progress.steps[verdict.server]
    return None if verdict.why_not else Step.UNTOUCHED


def _wanted(args: argparse.Namespace) -> Any:
    name, servers = re.compile(args.name), set(args.server)

    def wanted(each: Existing) -> bool:
        named = not args.name or name.fullmatch(each.server.name) is not None
        return named and (not servers or each.server.id in servers)

    return wanted


async def _get(cluster: Cluster, kind: Kind, ref: Ref) -> Any:
    try:
        return await cluster.get(kind, ref)
    except NotFound:
        raise ValueError(f"there is no {kind.value} {ref}") from None


async def _clouds_yaml(cluster: Cluster, pool: Pool) -> str:
    secret = Ref(pool.ref.namespace, pool.spec.cloud_ref.secret_name)
    try:
        data = await cluster.secret(secret)
    except NotFound:
        raise ValueError(f"there is no Secret {secret}") from None
    if CLOUDS_YAML not in data:
        raise ValueError(f"Secret {secret} has no key {CLOUDS_YAML!r}")
    return data[CLOUDS_YAML].decode(errors="replace")


def _json(rows: Sequence[Row]) -> str:
    return json.dumps(
        [
            {
                "server": row.verdict.server,
                "name": row.verdict.name,
                "zone": row.verdict.zone,
                "whyNot": row.verdict.why_not,
                "step": row.step and row.step.name.capitalize(),
            }
            for row in rows
        ]
    )


def as_it_builds(pool: Pool) -> tuple[Pool, Entry | None]:
    """A pool with the revision that it builds now, and what its catalogue's entry came to.

    Raises:
        ValueError: the operator has not looked the entry up yet.
    """
    ref, resolved = pool.spec.template.flavor_ref, pool.status.resolved
    if ref is None:
        return pool, None
    if resolved is None or resolved.name != ref.name:
        raise ValueError(f"pool {pool.ref} has not resolved {ref.name!r} yet: see its conditions")
    return replace(pool, revision=pool.status.revision), entry_resolved(resolved)


def _table(rows: Sequence[Row]) -> str:
    cells = [("SERVER", "NAME", "ZONE", "")]
    cells += [(r.verdict.server, r.verdict.name, r.verdict.zone, _said(r)) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = (
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join(lines)


def _said(row: Row) -> str:
    return f"no: {row.verdict.why_not}" if row.step is None else row.step
