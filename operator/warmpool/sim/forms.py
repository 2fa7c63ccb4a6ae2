"""Bodies and queries that clients send to Nova, checked as its own schemas do."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from warmpool.sim.builds import BuildRequest
from warmpool.sim.errors import Refused, bad_request, invalid_input
from warmpool.sim.listing import ATTRIBUTES, Query
from warmpool.sim.views import Version

MAX_NAME: Final = 255
MAX_USER_DATA: Final = 65_535
MAX_TAGS: Final = 50
MAX_TAG: Final = 60

TAG_PATTERN: Final = "^[^,/]*$"
UUID_PATTERN: Final = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")

CREATE_KEYS: Final = {
    "name": (2, 1),
    "flavorRef": (2, 1),
    "imageRef": (2, 1),
    "networks": (2, 1),
    "availability_zone": (2, 1),
    "min_count": (2, 1),
    "max_count": (2, 1),
    "metadata": (2, 1),
    "user_data": (2, 1),
    "key_name": (2, 1),
    "config_drive": (2, 1),
    "security_groups": (2, 1),
    "return_reservation_id": (2, 1),
    "adminPass": (2, 1),
    "description": (2, 19),
    "tags": (2, 52),
    "host": (2, 74),
    "hypervisor_hostname": (2, 74),
    "hostname": (2, 90),
}
"""What a server may be asked for, and since which microversion."""


def read_build(document: Mapping[str, Any], version: Version) -> BuildRequest:
    """The request that the body of a POST to /servers makes.

    Raises:
        Refused: 400. Its text may echo the whole body, user data included: so does Nova's.
    """
    if not isinstance(server := document.get("server"), dict):
        raise bad_request("'server' is a required property")
    _check_keys(server, version)
    zone, forced = _zone(server)
    least, most = _counts(server)
    return BuildRequest(
        read_name(server.get("name")),
        str(server["flavorRef"]),
        _image(server),
        networks=_networks(server, version),
        zone=zone,
        forced_host=forced,
        host=server.get("host") or server.get("hypervisor_hostname"),
        min_count=least,
        max_count=most,
        group=_group(document),
        tags=tuple(read_tags(server.get("tags", []))),
        metadata=read_metadata(server.get("metadata", {})),
        user_data=_user_data(server.get("user_data")),
        key_name=server.get("key_name"),
        config_drive=str(server.get("config_drive", False)).lower() in {"true", "1"},
        description=server.get("description"),
        hostname=server.get("hostname"),
        security_groups=_security_groups(server.get("security_groups", [{"name": "default"}])),
    )


def _check_keys(server: Mapping[str, Any], version: Version) -> None:
    for key in server:
        if CREATE_KEYS.get(key, (9, 9)) > version:
            complaint = f"Additional properties are not allowed ('{key}' was unexpected)"
            raise invalid_input("server", dict(server), complaint)
    required = ["name", "flavorRef", *(["networks"] if version >= (2, 37) else [])]
    for key in required:
        if key not in server:
            raise invalid_input("server", dict(server), f"'{key}' is a required property")


def read_name(name: object) -> str:
    """A name.

    Raises:
        Refused: 400.
    """
    if not isinstance(name, str):
        raise invalid_input("name", name, f"{name!r} is not of type 'string'")
    if not name.strip():
        raise invalid_input("name", name, f"{name!r} should be non-empty")
    if len(name) > MAX_NAME:
        raise invalid_input("name", name, f"{name!r} is too long")
    return name.strip()


def _image(server: Mapping[str, Any]) -> str:
    image = server.get("imageRef", "")
    if not image:
        raise bad_request("Missing imageRef attribute")
    if not isinstance(image, str) or not UUID_PATTERN.fullmatch(image):
        complaint = f"{image!r} is not valid under any of the given schemas"
        raise invalid_input("imageRef", image, complaint)
    return image


def _networks(server: Mapping[str, Any], version: Version) -> tuple[str, ...] | None:
    networks = server.get("networks")
    if networks is None or (networks == "auto" and version >= (2, 37)):
        return None
    if networks == "none" and version >= (2, 37):
        return ()
    if not isinstance(networks, list):
        complaint = f"{networks!r} is not of type 'array'"
        raise invalid_input("networks", networks, complaint)
    if not all(isinstance(item, dict) and isinstance(item.get("uuid"), str) for item in networks):
        raise bad_request("the simulator knows networks by uuid only")
    return tuple(item["uuid"] for item in networks)


def _zone(server: Mapping[str, Any]) -> tuple[str, str | None]:
    zone, _, host = (server.get("availability_zone") or "").partition(":")
    return zone, host.partition(":")[0] or None


def _counts(server: Mapping[str, Any]) -> tuple[int, int]:
    try:
        least = int(server.get("min_count", 1))
        most = int(server.get("max_count", least))
    except ValueError:
        raise invalid_input("min_count", server.get("min_count"), "is not an integer") from None
    if least > most:
        raise bad_request("min_count must be <= max_count")
    return least, most


def _group(document: Mapping[str, Any]) -> str | None:
    hints = document.get("os:scheduler_hints") or document.get("OS-SCH-HNT:scheduler_hints") or {}
    group = hints.get("group")
    return group if isinstance(group, str) else None


def read_tags(tags: object) -> list[str]:
    """Tags.

    Raises:
        Refused: 400.
    """
    if not isinstance(tags, list):
        raise invalid_input("tags", tags, f"{tags!r} is not of type 'array'")
    if len(tags) > MAX_TAGS:
        raise invalid_input("tags", tags, f"{tags!r} is too long")
    for n, tag in enumerate(tags):
        check_tag(str(n), tag)
    return tags


def check_tag(field: str, tag: object) -> None:
    """Raises: Refused: 400, this is no tag."""
    if not isinstance(tag, str):
        raise invalid_input(field, tag, f"{tag!r} is not of type 'string'")
    if len(tag) > MAX_TAG:
        raise invalid_input(field, tag, f"{tag!r} is too long")
    if not re.fullmatch("[^,/]*", tag):
        raise invalid_input(field, tag, f"{tag!r} does not match '{TAG_PATTERN}'")


def read_metadata(metadata: object) -> dict[str, str]:
    """Metadata.

    Raises:
        Refused: 400.
    """
    if not isinstance(metadata, dict):
        raise invalid_input("metadata", metadata, f"{metadata!r} is not of type 'object'")
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise invalid_input(key, value, f"{value!r} is not of type 'string'")
        if len(value) > MAX_NAME:
            raise invalid_input(key, value, f"{value!r} is too long")
        if len(key) > MAX_NAME:
            raise invalid_input("metadata", metadata, f"{key!r} is too long")
    return dict(metadata)


def _user_data(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise invalid_input("user_data", value, f"{value!r} is not of type 'string'")
    if len(value) > MAX_USER_DATA:
        raise invalid_input("user_data", value, f"{value!r} is too long")
    try:
        base64.decodebytes(value.encode())
    except (binascii.Error, UnicodeEncodeError):
        raise invalid_input("user_data", value, f"{value!r} is not a 'base64'") from None
    return value


def _security_groups(groups: object) -> tuple[str, ...]:
    if not isinstance(groups, list):
        raise invalid_input("security_groups", groups, f"{groups!r} is not of type 'array'")
    return tuple(str(group.get("name")) for group in groups if isinstance(group, dict))


# Queries of listings

TAG_KEYS: Final = {
    "tags": "tags",
    "tags-any": "tags_any",
    "not-tags": "not_tags",
    "not-tags-any": "not_tags_any",
}
PAGING: Final = frozenset({"limit", "marker", "sort_key", "sort_dir"})
MEMBER_KEYS: Final = frozenset(
    {"name", "status", "image", "flavor", "reservation_id", "changes-since", "all_tenants", "ip"}
)
LATER_MEMBER_KEYS: Final = frozenset(
    {"availability_zone", "key_name", "power_state", "task_state", "vm_state"}
)
"""What members may filter by from 2.83 on."""

KNOWN_KEYS: Final = (
    PAGING
    | MEMBER_KEYS
    | ATTRIBUTES
    | frozenset(TAG_KEYS)
    | frozenset(
        {"metadata", "deleted", "project_id", "tenant_id", "user_id", "locked", "config_drive"}
        | {"changes-before", "ip6", "display_name", "description", "launched_at", "terminated_at"}
        | {"created_at", "updated_at", "progress", "system_metadata", "soft_deleted"}
    )
)
DIGITS: Final = re.compile(r"[0-9]*")


def read_query(
    query: Mapping[str, str], project: str, version: Version, *, admin: bool, pairs: list[str]
) -> Query:
    """The listing that a query asks for. What a role may not filter by is ignored, as by Nova.

    Raises:
        Refused: 400 for what is unknown or wrong, 403 for all projects, 501 for a filter that Nova
            has and the simulator has not.
    """
    _check_query(query, version)
    if query.get("all_tenants", "0").lower() not in {"0", "false"} and not admin:
        rule = "os_compute_api:servers:index:get_all_tenants"
        raise Refused(403, f"Policy doesn't allow {rule} to be performed.")
    used = {key: value for key, value in query.items() if _may_use(key, version, admin=admin)}
    if "metadata" in used:
        raise bad_request("Invalid filter field: metadata.")
    everybody = used.get("all_tenants", "0").lower() not in {"0", "false"}
    return Query(
        None if everybody else project,
        name=used.get("name", ""),
        statuses=tuple(pairs) if "status" in used else (),
        since=_moment(used.get("changes-since")),
        deleted=used.get("deleted", "").lower() in {"true", "1"},
        equals=_equals(used),
        oldest_first=_oldest_first(query),
        limit=int(query.get("limit") or 1000),
        marker=query.get("marker"),
        **{field: frozenset(used[k].split(",")) for k, field in TAG_KEYS.items() if k in used},
    )


def _check_query(query: Mapping[str, str], version: Version) -> None:
    for key, value in query.items():
        if key not in KNOWN_KEYS and version >= (2, 75):
            raise bad_request(f"'{key}' does not match any of the regexes: '^_'")
        if check := CHECKS.get(key):
            check(value)


def _check_limit(value: str) -> None:
    if not DIGITS.fullmatch(value):
        raise _query_error("limit", value, f"'{value}' does not match '^[0-9]*$'")


def _check_name(value: str) -> None:
    try:
        re.compile(value)
    except re.error:
        raise _query_error("name", value, f"'{value}' is not a 'regex'") from None


def _check_since(value: str) -> None:
    try:
        _moment(value)
    except ValueError:
        complaint = f"'{value}' is not a 'date-time'"
        raise _query_error("changes-since", value, complaint) from None


CHECKS: Final[dict[str, Callable[[str], None]]] = {
    "limit": _check_limit,
    "name": _check_name,
    "changes-since": _check_since,
}


def _query_error(key: str, value: str, complaint: str) -> Refused:
    return bad_request(f"Invalid input for query parameters {key}. Value: {value}. {complaint}")


def _may_use(key: str, version: Version, *, admin: bool) -> bool:
    if key in TAG_KEYS:
        return version >= (2, 26)
    if key in PAGING or key not in KNOWN_KEYS:
        return False
    if admin or key in MEMBER_KEYS:
        return True
    return key in LATER_MEMBER_KEYS and version >= (2, 83)


def _equals(used: Mapping[str, str]) -> dict[str, str]:
    handled = MEMBER_KEYS | frozenset(TAG_KEYS) | {"deleted", "project_id", "tenant_id"}
    for key in used:
        if key not in ATTRIBUTES and (key not in handled or key == "ip"):
            raise Refused(501, f"The simulator does not filter by '{key}'.")
    return {key: value for key, value in used.items() if key in ATTRIBUTES}


def _oldest_first(query: Mapping[str, str]) -> bool:
    if query.get("sort_key", "created_at") != "created_at":
        raise Refused(501, "The simulator sorts by 'created_at' only.")
    return query.get("sort_dir", "desc") == "asc"


def _moment(value: str | None) -> datetime | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
