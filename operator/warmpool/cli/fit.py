"""`warmpool fit -f claim.yaml`: could I have this now, and if not, what is short?

Answers from the API server's data alone, with the planning code that the operator itself uses. It
reserves nothing.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from warmpool.api.names import Kind
from warmpool.domain.claims import Shortage, Undecided
from warmpool.domain.errors import ClusterError
from warmpool.domain.facts import Claim
from warmpool.effects.clock import SystemClock
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.reconcile.fit import Placed, fit, question_of
from warmpool.reconcile.store import Store
from warmpool.reconcile.sweeper import Comparer

YES: Final = 0
NO: Final = 1
ERROR: Final = 2
"""Exit statuses: it fits; it does not; the question could not be answered."""


def add_parser(commands: Any) -> None:
    """Add `fit` to the subcommands of `warmpool`."""
    parser = commands.add_parser("fit", help="could this claim be had now, and if not, why not?")
    parser.add_argument("-f", "--filename", required=True, help="YAML of a VMClaim; - for stdin")
    parser.add_argument("-n", "--namespace", default=None, help="namespace, if the YAML has none")
    parser.add_argument("--kubeconfig", default=None, help="default: $KUBECONFIG")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer; exit status 0 for yes, 1 for no, 2 if it cannot be told."""
    try:
        claim = load(_text(args.filename), args.namespace)
        answer = asyncio.run(_ask(claim, args.kubeconfig))
    except (OSError, ValueError, ClusterError) as error:
        print(f"warmpool fit: {error}", file=sys.stderr)
        return ERROR
    print(_json(answer) if args.output == "json" else _table(answer))
    match answer:
        case Placed():
            return YES
        case Shortage():
            return NO
        case Undecided():
            return ERROR


def load(text: str, namespace: str | None) -> Claim:
    """The one VMClaim of a YAML text.

    Raises:
        ValueError: there is none, or more than one, or it is not valid; says which field.
    """
    try:
        documents = [d for d in yaml.safe_load_all(text) if d]
    except yaml.YAMLError as error:
        raise ValueError(f"the file is no YAML: {error}") from error
    claims = [d for d in documents if isinstance(d, dict) and d.get("kind") == Kind.VM_CLAIM]
    if len(claims) != 1:
        raise ValueError(f"the file holds {len(claims)} VMClaims: one is needed")
    return question_of(claims[0], namespace)


def _text(filename: str) -> str:
    return sys.stdin.read() if filename == "-" else Path(filename).read_text(encoding="utf-8")


async def _ask(claim: Claim, kubeconfig: str | None) -> Placed | Shortage | Undecided:
    path = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    credentials = await Credentials.load(path)
    clock, store = SystemClock(), Store()
    async with KubeCluster(credentials, claim.ref.namespace) as cluster:
        await Comparer(store, cluster).compare()
    return fit(claim, store, clock)


def _json(answer: Placed | Shortage | Undecided) -> str:
    if not isinstance(answer, Placed):
        reason = answer.reason.value if isinstance(answer, Shortage) else "Undecided"
        return json.dumps({"fits": False, "reason": reason, "message": answer.message})
    vms = [
        {
            "request": request,
            "namespace": vm.ref.namespace,
            "name": vm.ref.name,
            "zone": vm.place.zone,
            "rack": vm.place.rack,
            "hypervisor": vm.place.hypervisor,
        }
        for request, vm in answer.vms
    ]
    return json.dumps({"fits": True, "vms": vms})


def _table(answer: Placed | Shortage | Undecided) -> str:
    match answer:
        case Shortage(reason=reason, message=message):
            return f"no: {reason.value}: {message}"
        case Undecided(message=message):
            return f"not decided: {message}"
        case Placed(vms=vms):
            rows = [("REQUEST", "VM", "RACK", "HYPERVISOR", "ZONE")]
            rows += [
                (r, vm.ref.name, vm.place.rack, vm.place.hypervisor, vm.place.zone) for r, vm in vms
            ]
            widths = [max(len(row[i]) for row in rows) for i in range(5)]
            lines = [
                "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                for row in rows
            ]
            return "\n".join(["yes", *(line.rstrip() for line in lines)])
