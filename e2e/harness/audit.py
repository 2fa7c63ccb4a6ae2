"""Which replica wrote what, by the API server's own word: its audit log.

Every process gets a token of its own for the one ServiceAccount. The API server writes the token's
id beside every request, so nothing that a replica says of itself is believed. Only writes are
logged, with their answers: these tell the revision that a write has led to. A server that is killed
takes the lines with it that it had not written yet: of a write that reached etcd in its last
milliseconds nobody knows the author.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import yaml

from harness.fleet import ACCOUNT, HOME
from harness.history import moment
from warmpool.api.names import LEASE_NAME

Body = dict[str, Any]

CREDENTIAL: Final = "authentication.kubernetes.io/credential-id"
LARGE: Final = "100000"
"""MB: the log is never rotated away."""


@dataclass(frozen=True, slots=True)
class Write:
    """One request that would change something, and what came of it.

    Times are seconds since the epoch, by the API server's clock.
    """

    received: float
    done: float
    credential: str
    verb: str
    what: str
    """Resource and subresource: `vmclaims/status`."""
    namespace: str
    name: str
    code: int
    revision: int | None = None
    """That it has led to; None: it led to none, or what it led to has none any more."""
    holder: str | None = None
    """Of the leaders' Lease, once this was written; None: it is about something else."""
    renewed: float = 0.0
    """When the holder asked for that, by its own clock."""

    @property
    def carried_out(self) -> bool:
        return 200 <= self.code < 300

    def __str__(self) -> str:
        return f"{self.verb} {self.what} {self.namespace}/{self.name}: {self.code}"


def arguments(folder: Path) -> Sequence[str]:
    """Flags for an API server that keeps the log in this folder."""
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "omitManagedFields": True,
        "rules": [
            {
                "level": "RequestResponse",
                "users": [f"system:serviceaccount:{HOME}:{ACCOUNT}"],
                "verbs": ["create", "update", "patch", "delete", "deletecollection"],
            },
            {"level": "None"},
        ],
    }
    file = folder / "policy.yaml"
    file.write_text(yaml.safe_dump(policy), encoding="utf-8")
    return (
        f"--audit-policy-file={file}",
        f"--audit-log-path={log_in(folder)}",
        f"--audit-log-maxsize={LARGE}",
    )


def log_in(folder: Path) -> Path:
    return folder / "audit.log"


def credential_of(token: str) -> str:
    """The id of a ServiceAccount's token, as the log names it."""
    coded = token.split(".")[1]
    claims = orjson.loads(base64.urlsafe_b64decode(coded + "=" * (-len(coded) % 4)))
    return f"JTI={claims['jti']}"


def read(text: str) -> list[Write]:
    """The writes of a log, in the order in which they were answered."""
    return [_write(event) for line in text.splitlines() for event in _events(line)]


def _events(line: str) -> Iterator[Body]:
    """What a line holds: one event, or the beginning of one that was cut off, and another."""
    for part in re.split(r'(?=\{"kind":"Event","apiVersion":"audit\.k8s\.io)', line):
        try:
            yield orjson.loads(part)
        except orjson.JSONDecodeError:
            continue


def _write(event: Body) -> Write:
    about, answer = event.get("objectRef", {}), event.get("responseObject") or {}
    sub = f"/{about['subresource']}" if "subresource" in about else ""
    meta = answer.get("metadata") or {}
    revision = meta.get("resourceVersion") if "uid" in meta else None
    name = about.get("name") or meta.get("name", "")
    lease = about.get("resource") == "leases" and name == LEASE_NAME
    spec = (event.get("requestObject") or {}).get("spec", {}) if lease else {}
    return Write(
        received=moment(event["requestReceivedTimestamp"]),
        done=moment(event["stageTimestamp"]),
        credential=event["user"].get("extra", {}).get(CREDENTIAL, [""])[0],
        verb=event["verb"],
        what=about.get("resource", "") + sub,
        namespace=about.get("namespace", ""),
        name=name,
        code=event.get("responseStatus", {}).get("code", 0),
        revision=int(revision) if revision else None,
        holder=str(spec.get("holderIdentity") or "") if lease else None,
        renewed=moment(spec["renewTime"]) if spec.get("renewTime") else 0.0,
    )
