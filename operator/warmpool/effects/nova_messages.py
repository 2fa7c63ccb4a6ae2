"""What is sent to Nova, and what its answers to our calls say. Pure."""

import re
from typing import Final

from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER
from warmpool.domain.cloud import NetworkChoice, Quota, Server, ServerRequest, Usage
from warmpool.domain.errors import CloudUnavailable, OutcomeUnknown
from warmpool.domain.ids import InstallationId, ServerId
from warmpool.effects.nova_calls import Answer
from warmpool.effects.nova_reading import (
    Page,
    as_object,
    is_fragment,
    read_down_hosts,
    read_page,
    read_server,
    whole_object,
)
from warmpool.effects.nova_refusals import FORBIDDEN, refusal

GOOD: Final = range(200, 300)
NOT_FOUND: Final = 404
CONFLICT: Final = 409

_SERVER_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


def is_server_id(text: str) -> bool:
    """Whether this may go into a path as the id of a server. Nova's own are UUIDs."""
    return _SERVER_ID.fullmatch(text) is not None


def build_body(request: ServerRequest, installation: InstallationId) -> dict[str, object]:
    """What to POST for one server."""
    body: dict[str, object] = {"server": _server_body(request, installation)}
    if request.spec.group:
        body["os:scheduler_hints"] = {"group": request.spec.group}
    return body


def _server_body(request: ServerRequest, installation: InstallationId) -> dict[str, object]:
    """Tags mark whose it is, before anything else can."""
    spec = request.spec
    marks = (f"{TAG_INSTALLATION}{installation}", f"{TAG_OWNER}{request.owner}")
    networks = spec.networks
    optional = {
        "availability_zone": request.zone,
        "config_drive": spec.config_drive,
        "key_name": spec.key_pair,
        "metadata": dict(spec.metadata),
        "security_groups": [{"name": name} for name in spec.security_groups],
        "user_data": spec.user_data,
        "hypervisor_hostname": request.hypervisor,
    }
    return {
        "name": request.name,
        "flavorRef": spec.flavor_id,
        "imageRef": spec.image_id,
        "min_count": 1,
        "max_count": 1,
        "networks": (
            networks.value
            if isinstance(networks, NetworkChoice)
            else [{"uuid": network} for network in networks]
        ),
        "tags": list(dict.fromkeys((*marks, *spec.tags))),
        **{key: value for key, value in optional.items() if value},
    }


def good(answer: Answer) -> Answer:
    """The answer, if it is a good one; else what its refusal means."""
    if answer.status not in GOOD:
        raise refusal(answer)
    return answer


def found(answer: Answer) -> bytes | None:
    """Body of a good answer, None for 404."""
    return None if answer.status == NOT_FOUND else good(answer).body


def created(answer: Answer) -> ServerId:
    """The id of a new server."""
    return ServerId(created_id(answer, "server"))


def created_id(answer: Answer, key: str) -> str:
    """The id of something new. An acceptance that cannot be read is an acceptance all the same."""
    body = good(answer).body
    try:
        ident = as_object(body, key).get("id")
    except CloudUnavailable as error:
        raise OutcomeUnknown(f"{answer.call.name}: accepted, but {error}") from error
    if not isinstance(ident, str) or not _SERVER_ID.fullmatch(ident):
        raise OutcomeUnknown(f"{answer.call.name}: accepted, but Nova told no id")
    return ident


def one_server(answer: Answer, *, installation: InstallationId) -> Server | None:
    """The server of an answer about one, None for 404."""
    body = found(answer)
    if body is None:
        return None
    record = as_object(body, "server")
    if is_fragment(record):
        raise CloudUnavailable(f"{answer.call.name}: the cell of this server does not answer")
    return read_server(record, installation)


def page(answer: Answer, *, installation: InstallationId) -> Page:
    """One page of a listing."""
    return read_page(good(answer).body, answer.date, installation)


def quota(answer: Answer) -> Quota:
    """The project's limits and what it uses of them. -1 is Nova's way to say: without bound."""
    limits = as_object(good(answer).body, "limits").get("absolute")
    if not isinstance(limits, dict):
        raise CloudUnavailable(f"{answer.call.name}: the answer has no absolute limits")

    def usage(what: str, size: str) -> Usage:
        limit, used = limits.get(f"maxTotal{size}"), limits.get(f"total{what}Used")
        if not isinstance(limit, int) or not isinstance(used, int):
            raise CloudUnavailable(f"{answer.call.name}: the answer lacks the limit of {what}")
        return Usage(max(used, 0), limit if limit >= 0 else None)

    members = limits.get("maxServerGroupMembers")
    return Quota(
        usage("Instances", "Instances"),
        usage("Cores", "Cores"),
        usage("RAM", "RAMSize"),
        members if isinstance(members, int) and members >= 0 else None,
    )


def down_hosts(answer: Answer) -> frozenset[str]:
    """Hosts of silent services; none where these credentials may not see services."""
    if answer.status == FORBIDDEN:
        return frozenset()
    return read_down_hosts(good(answer).body)


def console(answer: Answer) -> str:
    """What a console holds. A server that has none is a 404, or a 409 while it is not placed."""
    if answer.status in (NOT_FOUND, CONFLICT):
        return ""
    text = whole_object(good(answer).body).get("output")
    return text if isinstance(text, str) else ""
