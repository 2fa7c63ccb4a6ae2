"""Nova's JSON and texts, read into our words. Pure: no client library, no network.

Nothing that Nova says is trusted to be well-formed. A field that is missing or garbage reads as
empty, a record that is no server at all is `CloudUnavailable`, every text is bounded, and no text
repeats user data: Nova's own validation errors echo the value they refuse.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

import orjson

from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER, Reason
from warmpool.domain.cloud import FaultClass, FlavorSize, Server, ServerFault, ServerState
from warmpool.domain.errors import CloudUnavailable
from warmpool.domain.ids import InstallationId, ServerId, VmUid
from warmpool.domain.marks import read_marks

MAX_TEXT: Final = 500
"""Characters of any text of Nova's that goes further: a status message has room for 1024."""

MAX_FOREIGN_TEXT: Final = 100_000
"""Characters of a foreign text that are looked at: an echoed user data fits, an attack does not."""

MAX_NAME: Final = 255
"""Characters of names, zones and hosts: the width of Nova's own columns."""

MAX_ADDRESSES: Final = 64
"""Addresses of one server. A WarmVM's status has to hold them."""


STATES: Final = {
    "BUILD": ServerState.BUILDING,
    "ACTIVE": ServerState.ACTIVE,
    "ERROR": ServerState.ERROR,
    "SHUTOFF": ServerState.STOPPED,
    "PAUSED": ServerState.STOPPED,
    "SUSPENDED": ServerState.STOPPED,
    "SHELVED": ServerState.STOPPED,
    "SHELVED_OFFLOADED": ServerState.STOPPED,
    "SOFT_DELETED": ServerState.STOPPED,
    "DELETED": ServerState.DELETED,
}
"""Nova's status in our words. What is not here (REBUILD, REBOOT, RESIZE, MIGRATING, UNKNOWN ...)
is OTHER."""


class FaultText(NamedTuple):
    """A piece of `fault.message`, in lower case, and what it means."""

    text: str
    kind: FaultClass
    reason: Reason


FAULT_TEXTS: Final = (
    FaultText("quota exceeded", FaultClass.CAPACITY, Reason.QUOTA_EXCEEDED),
    FaultText("maximum number of ports exceeded", FaultClass.CAPACITY, Reason.QUOTA_EXCEEDED),
    FaultText("no fixed ip addresses available", FaultClass.CAPACITY, Reason.QUOTA_EXCEEDED),
    FaultText("no more ip addresses available", FaultClass.CAPACITY, Reason.QUOTA_EXCEEDED),
    FaultText("no valid host was found", FaultClass.CAPACITY, Reason.NO_VALID_HOST),
    FaultText("group policy was violated", FaultClass.CAPACITY, Reason.NO_VALID_HOST),
    FaultText("insufficient compute resources", FaultClass.CAPACITY, Reason.NO_VALID_HOST),
    FaultText("exhausted all hosts", FaultClass.HOSTS, Reason.BUILD_FAULT),
    FaultText("exceeded maximum number of retries", FaultClass.VM, Reason.BUILD_FAULT),
)
"""What the texts of faults mean, first match wins: all faults have code 500, only the text tells
them apart. "Exceeded maximum number of retries" carries the last attempt's exception, so where
that one speaks of capacity it is capacity, else the server itself cannot be spawned. With no host
left to try it carries nothing."""


def read_fault(message: str) -> ServerFault:
    """Tell capacity from a server of its own ill luck. An unknown text is the server's."""
    lowered = message.lower()
    text = clean(message)
    for known in FAULT_TEXTS:
        if known.text in lowered:
            return ServerFault(known.kind, known.reason, text)
    return ServerFault(FaultClass.VM, Reason.BUILD_FAULT, text or "Nova gives no reason")


_ECHO: Final = re.compile(r"^(.{0,200}?)[.:]?\s+value: ", re.IGNORECASE | re.DOTALL)
_ENDINGS: Final = re.compile(
    r"is too long$|is too short$|should be non-empty$|is a required property$"
    r"|is not valid under any of the given schemas$|does not match '[^']{1,80}'$"
    r"|is not a '[a-z0-9-]{1,30}'$|is not of type '[a-z]{1,20}'(, '[a-z]{1,20}')*$"
)
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\x9f]+")
_LONG_WORD: Final = re.compile(r"[^\s]{120,}")
_URL_PASSWORD: Final = re.compile(r"//[^/@\s]*@")


def clean(text: str, withheld: tuple[str, ...] = ()) -> str:
    """One bounded line of a foreign text, without the values that it echoes.

    `withheld` are values that must not appear, whatever Nova says about them.
    """
    for value in withheld:
        if value:
            text = text.replace(value, "[withheld]")
    text = text[:MAX_FOREIGN_TEXT]
    if echo := _ECHO.search(text):
        ending = _ENDINGS.search(text.rstrip())
        text = f"{echo[1]}: the value {ending[0] if ending else 'is refused'}"
    text = _URL_PASSWORD.sub("//", _CONTROL.sub(" ", text).strip())
    text = _LONG_WORD.sub("[...]", text)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."


def error_text(body: bytes, withheld: tuple[str, ...] = ()) -> str:
    """Nova's own words in an error answer: `{"forbidden": {"code": 403, "message": ...}}`.

    A body that is not of this form (a proxy's page) is not quoted.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "no explanation in Nova's form"
    for value in parsed.values() if isinstance(parsed, dict) else ():
        if isinstance(value, dict) and isinstance(value.get("message"), str):
            return clean(value["message"], withheld) or "an empty explanation"
    return "no explanation in Nova's form"


def whole_object(body: bytes) -> dict[str, object]:
    """The object that an answer is.

    Raises:
        CloudUnavailable: it is none.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CloudUnavailable("the answer is no JSON") from error
    if not isinstance(parsed, dict):
        raise CloudUnavailable("the answer is no JSON object")
    return parsed


def as_object(body: bytes, key: str) -> dict[str, object]:
    """The object below `key` of an answer.

    Raises:
        CloudUnavailable: there is none.
    """
    value = whole_object(body).get(key)
    if not isinstance(value, dict):
        raise CloudUnavailable(f"the answer has no object {key!r}")
    return value


def as_objects(body: bytes, key: str) -> list[dict[str, object]]:
    """The list of objects below `key` of an answer.

    Raises:
        CloudUnavailable: there is none, or it holds something else.
    """
    return _objects(whole_object(body), key)


def _objects(parsed: Mapping[str, object], key: str) -> list[dict[str, object]]:
    value = parsed.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise CloudUnavailable(f"the answer has no list of objects {key!r}")
    return value


def read_server(record: Mapping[str, object], installation: InstallationId) -> Server:
    """One record of a listing, or of an answer about one server.

    Raises:
        CloudUnavailable: it has no id or no status, so it is no server.
    """
    ident, status = record.get("id"), record.get("status")
    if not (isinstance(ident, str) and isinstance(status, str) and 0 < len(ident) <= MAX_NAME):
        raise CloudUnavailable("Nova answered something that is no server")
    task = _text(record, "OS-EXT-STS:task_state")
    status = clean(status)[:MAX_NAME]
    return Server(
        id=ServerId(ident),
        name=_text(record, "name"),
        state=STATES.get(status, ServerState.OTHER),
        busy=bool(task),
        owner=read_owner(record, installation),
        zone=_text(record, "OS-EXT-AZ:availability_zone"),
        host_id=_text(record, "hostId"),
        host=_text(record, "OS-EXT-SRV-ATTR:host") or None,
        hypervisor=_text(record, "OS-EXT-SRV-ATTR:hypervisor_hostname") or None,
        addresses=read_addresses(record.get("addresses")),
        hostname=_text(record, "OS-EXT-SRV-ATTR:hostname"),
        status=f"{status}/{task}" if task else status,
        fault=_fault_of(record) if status == "ERROR" else None,
        created=read_time(record.get("created")),
        updated=read_time(record.get("updated")),
        marks=read_marks(record.get("metadata")),
    )


def _text(record: Mapping[str, object], key: str) -> str:
    value = record.get(key)
    return value[:MAX_NAME] if isinstance(value, str) else ""


def _fault_of(record: Mapping[str, object]) -> ServerFault | None:
    fault = record.get("fault")
    if not isinstance(fault, dict):
        return None
    message = fault.get("message")
    return read_fault(message if isinstance(message, str) else "")


def is_ours(record: Mapping[str, object], installation: InstallationId) -> bool:
    """Whether the record carries this installation's tag."""
    tags = record.get("tags")
    return isinstance(tags, list) and f"{TAG_INSTALLATION}{installation}" in tags


def read_owner(record: Mapping[str, object], installation: InstallationId) -> VmUid | None:
    """The owner of a server of this installation: the one that adopted it, or else its tag's.

    None: not ours, or unnamed.
    """
    tags = record.get("tags")
    if not isinstance(tags, list) or not is_ours(record, installation):
        return None
    if (adopted := read_marks(record.get("metadata")).owner) is not None:
        return adopted
    owners = (t[len(TAG_OWNER) :] for t in tags if isinstance(t, str) and t.startswith(TAG_OWNER))
    return VmUid(min((owner for owner in owners if owner), default="")) or None


def is_fragment(record: Mapping[str, object]) -> bool:
    """Whether this is all that Nova can say of a server whose cell does not answer.

    From 2.69 on such a server comes with its id and the status UNKNOWN, without its tags, so
    nobody can tell whose it is.
    """
    return record.get("status") == "UNKNOWN" and "tags" not in record


def read_addresses(value: object) -> tuple[str, ...]:
    """Addresses, fixed before floating, IPv4 before IPv6, else in Nova's own order (of ports)."""
    if not isinstance(value, dict):
        return ()
    ranked = sorted(_ranked_addresses(value), key=lambda pair: pair[0])
    return tuple(dict.fromkeys(address for _, address in ranked))[:MAX_ADDRESSES]


def _ranked_addresses(networks: Mapping[str, object]) -> Iterator[tuple[tuple[bool, int], str]]:
    for ports in networks.values():
        for port in ports if isinstance(ports, list) else ():
            address = port.get("addr") if isinstance(port, dict) else None
            if not isinstance(address, str):
                continue
            try:
                parsed = ip_address(address)
            except ValueError:
                continue
            yield (port.get("OS-EXT-IPS:type") == "floating", parsed.version), str(parsed)


def read_time(value: object) -> datetime | None:
    """An ISO time of Nova's, which is UTC whether it says so or not. None: garbage."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def read_date_header(value: str | None) -> datetime:
    """The cloud's own time, from the `Date` header of an answer.

    Raises:
        CloudUnavailable: there is none that can be read.
    """
    try:
        parsed = parsedate_to_datetime(value or "")
    except ValueError as error:
        raise CloudUnavailable("Nova's answer has no Date header that can be read") from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing."""

    ours: tuple[Server, ...]
    """Servers that carry our installation's tag."""
    deleted: tuple[Server, ...]
    """Deleted servers without a tag: Nova drops tags and metadata with the server, so whose they
    were only a memory of ids can tell."""
    fragments: bool
    """Some records are fragments, of which nobody can tell whose they are."""
    marker: str | None
    """Where the next page starts. None: this was the last."""
    taken_at: datetime


def read_page(body: bytes, date: str | None, installation: InstallationId) -> Page:
    """One page of `GET /servers/detail`.

    Raises:
        CloudUnavailable: it is no such page, or a record in it is no server.
    """
    taken_at = read_date_header(date)
    parsed = whole_object(body)
    records = _objects(parsed, "servers")
    ours, deleted, fragments = [], [], False
    for record in records:
        if is_ours(record, installation):
            ours.append(read_server(record, installation))
        elif record.get("status") == "DELETED":
            deleted.append(read_server(record, installation))
        elif is_fragment(record):
            fragments = True
    return Page(tuple(ours), tuple(deleted), fragments, _next_marker(parsed, "servers"), taken_at)


def next_marker(body: bytes, key: str) -> str | None:
    """Marker of the page after this one.

    Only the marker is taken from Nova's link, never its host: behind a proxy that is a wrong one,
    and a token would be sent there.

    Raises:
        CloudUnavailable: it is no object, or there is a next page, but its link names no marker.
    """
    return _next_marker(whole_object(body), key)


def _next_marker(parsed: Mapping[str, object], key: str) -> str | None:
    links = parsed.get(f"{key}_links")
    for link in links if isinstance(links, list) else ():
        if not isinstance(link, dict) or link.get("rel") != "next":
            continue
        href = link.get("href")
        markers = parse_qs(urlsplit(href).query).get("marker") if isinstance(href, str) else None
        if not markers:
            raise CloudUnavailable("Nova's link to the next page names no marker")
        return markers[0]
    return None


def read_size(flavor: Mapping[str, object]) -> FlavorSize:
    """What one server of a flavor takes. Swap is in MiB, and counts as disk in whole GiB."""
    disk = number(flavor, "disk") + number(flavor, "OS-FLV-EXT-DATA:ephemeral")
    specs = flavor.get("extra_specs")
    pairs = specs.items() if isinstance(specs, dict) else ()
    return FlavorSize(
        vcpus=number(flavor, "vcpus"),
        ram_mb=number(flavor, "ram"),
        disk_gb=disk + -(-number(flavor, "swap") // 1024),
        extra_specs=tuple(sorted((str(k), v) for k, v in pairs if isinstance(v, str))),
    )


def number(record: Mapping[str, object], key: str) -> int:
    """A count of something, 0 for garbage."""
    value = record.get(key)
    return value if isinstance(value, int) and value > 0 else 0


def read_racks(body: bytes, key: str) -> dict[str, str]:
    """Compute host to rack, from the host aggregates.

    A host that aggregates put into two racks is left out: an unknown rack holds a constraint
    back, a wrong one breaks it.
    """
    found: dict[str, set[str]] = {}
    for aggregate in as_objects(body, "aggregates"):
        metadata, hosts = aggregate.get("metadata"), aggregate.get("hosts")
        rack = metadata.get(key) if isinstance(metadata, dict) else None
        if not isinstance(rack, str) or not rack or not isinstance(hosts, list):
            continue
        for host in hosts:
            if isinstance(host, str):
                found.setdefault(host[:MAX_NAME], set()).add(rack[:MAX_NAME])
    return {host: racks.pop() for host, racks in sorted(found.items()) if len(racks) == 1}


def read_down_hosts(body: bytes) -> frozenset[str]:
    """Hosts of the compute services that read down."""
    down = (s for s in as_objects(body, "services") if s.get("state") == "down")
    return frozenset(host for s in down if (host := _text(s, "host")))
