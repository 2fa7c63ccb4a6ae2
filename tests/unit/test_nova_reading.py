"""Nova's JSON and texts: what is read of them, and what garbage does."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from warmpool.api.names import Reason
from warmpool.domain.cloud import FaultClass, ServerState
from warmpool.domain.errors import CloudUnavailable
from warmpool.domain.ids import InstallationId
from warmpool.effects.nova_reading import (
    FAULT_TEXTS,
    MAX_ADDRESSES,
    MAX_TEXT,
    clean,
    error_text,
    read_addresses,
    read_date_header,
    read_down_hosts,
    read_fault,
    read_page,
    read_racks,
    read_server,
    read_time,
)

HERE = InstallationId("here")
OURS = ["warmpool.dev:install=here", "warmpool.dev:vm=7f3c"]
DATE = "Fri, 20 Nov 2026 22:20:32 GMT"


def a_record(**over: Any) -> dict[str, Any]:
    """A server as Nova shows it to an admin at 2.90."""
    return {
        "id": "98b0d07e-aaa5-44fe-9f9d-9497c4c9a43f",
        "name": "es-data-x7k2p",
        "status": "ACTIVE",
        "created": "2026-11-20T22:24:52Z",
        "updated": "2026-11-20T22:24:53Z",
        "hostId": "29240dfa",
        "addresses": {},
        "tags": OURS,
        "OS-EXT-AZ:availability_zone": "az1",
        "OS-EXT-STS:task_state": None,
        "OS-EXT-SRV-ATTR:host": "host3",
        "OS-EXT-SRV-ATTR:hypervisor_hostname": "host3.example",
        "OS-EXT-SRV-ATTR:hostname": "es-data-x7k2p",
    } | over


def a_page(*records: object, **over: Any) -> bytes:
    return orjson.dumps({"servers": list(records)} | over)


def test_a_server_is_read_with_all_that_an_admin_sees() -> None:
    server = read_server(a_record(), HERE)

    assert server.state is ServerState.ACTIVE
    assert not server.busy
    assert server.owner == "7f3c"
    assert (server.zone, server.host, server.hypervisor) == ("az1", "host3", "host3.example")
    assert (server.host_id, server.hostname) == ("29240dfa", "es-data-x7k2p")
    assert server.created == datetime(2026, 11, 20, 22, 24, 52, tzinfo=UTC)
    assert server.updated == datetime(2026, 11, 20, 22, 24, 53, tzinfo=UTC)


def test_what_a_member_does_not_see_is_none_and_not_empty() -> None:
    hidden = ("OS-EXT-SRV-ATTR:host", "OS-EXT-SRV-ATTR:hypervisor_hostname")
    record = {k: v for k, v in a_record().items() if k not in hidden}

    server = read_server(record, HERE)

    assert server.host is None
    assert server.hypervisor is None


def test_a_task_makes_an_active_server_busy() -> None:
    server = read_server(a_record(**{"OS-EXT-STS:task_state": "powering-off"}), HERE)

    assert server.state is ServerState.ACTIVE
    assert server.busy
    assert server.status == "ACTIVE/powering-off"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("BUILD", ServerState.BUILDING),
        ("ERROR", ServerState.ERROR),
        ("SHUTOFF", ServerState.STOPPED),
        ("SHELVED_OFFLOADED", ServerState.STOPPED),
        ("SOFT_DELETED", ServerState.STOPPED),
        ("DELETED", ServerState.DELETED),
        ("REBUILD", ServerState.OTHER),
        ("MIGRATING", ServerState.OTHER),
        ("A_STATE_OF_2031", ServerState.OTHER),
    ],
)
def test_states(status: str, state: ServerState) -> None:
    assert read_server(a_record(status=status), HERE).state is state


@pytest.mark.parametrize(
    "tags",
    [
        None,
        [],
        "warmpool.dev:install=here",
        ["warmpool.dev:install=elsewhere", "warmpool.dev:vm=7f3c"],
        ["warmpool.dev:install=here-too", "warmpool.dev:vm=7f3c"],
        ["warmpool.dev:vm=7f3c"],
        ["warmpool.dev:install=here", "warmpool.dev:vm="],
        [1, None, {}],
    ],
)
def test_a_server_without_our_tags_has_no_owner(tags: object) -> None:
    assert read_server(a_record(tags=tags), HERE).owner is None


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"id": "x"},
        {"status": "ACTIVE"},
        {"id": 7, "status": "ACTIVE"},
        {"id": "", "status": "ACTIVE"},
        {"id": "x" * 1000, "status": "ACTIVE"},
        {"id": "x", "status": None},
    ],
)
def test_a_record_without_id_or_status_is_no_server(record: dict[str, object]) -> None:
    with pytest.raises(CloudUnavailable, match="no server"):
        read_server(record, HERE)


def test_garbage_in_other_fields_reads_as_empty() -> None:
    garbage = dict.fromkeys(a_record().keys() - {"id", "status"}, 3.5)

    server = read_server(a_record(**garbage, fault=["?"], status="ERROR"), HERE)

    assert (server.name, server.zone, server.host, server.addresses) == ("", "", None, ())
    assert (server.created, server.updated, server.fault) == (None, None, None)


def test_long_names_are_cut() -> None:
    server = read_server(a_record(name="n" * 5000, status="S" * 5000), HERE)

    assert len(server.name) == 255
    assert len(server.status) <= 255


def test_addresses_come_fixed_first_ipv4_first_and_in_the_order_of_the_ports() -> None:
    networks = {
        "front": [
            {"addr": "203.0.113.9", "version": 4, "OS-EXT-IPS:type": "floating"},
            {"addr": "2001:db8::9", "version": 6, "OS-EXT-IPS:type": "fixed"},
            {"addr": "10.0.0.9", "version": 4, "OS-EXT-IPS:type": "fixed"},
        ],
        "back": [{"addr": "10.0.0.1", "version": 4, "OS-EXT-IPS:type": "fixed"}],
    }

    assert read_addresses(networks) == ("10.0.0.9", "10.0.0.1", "2001:db8::9", "203.0.113.9")


def test_addresses_that_are_none_are_left_out_and_many_are_cut() -> None:
    many = [{"addr": f"10.0.{n // 250}.{n % 250}"} for n in range(500)]

    assert read_addresses({"net": [{"addr": "$(reboot)"}, {"addr": 4}, "x"], "b": 1}) == ()
    assert len(read_addresses({"net": many})) == MAX_ADDRESSES


@pytest.mark.parametrize("value", [None, 17, "", "yesterday", "2026-13-40T00:00:00Z"])
def test_a_time_that_is_none_is_none(value: object) -> None:
    assert read_time(value) is None


def test_a_time_without_a_zone_is_utc() -> None:
    assert read_time("2026-11-20T22:24:53.000000") == datetime(2026, 11, 20, 22, 24, 53, tzinfo=UTC)


def test_the_date_header_is_the_clouds_time() -> None:
    assert read_date_header(DATE) == datetime(2026, 11, 20, 22, 20, 32, tzinfo=UTC)
    with pytest.raises(CloudUnavailable, match="Date"):
        read_date_header(None)


ANTI_AFFINITY = (
    "Exceeded maximum number of retries. Exceeded max scheduling attempts 3 for instance 1234. "
    "Last exception: Build of instance 1234 was re-scheduled: Anti-affinity instance group policy "
    "was violated."
)
BAD_DISK = (
    "Exceeded maximum number of retries. Exceeded max scheduling attempts 3 for instance 1234. "
    "Last exception: libvirt: cannot open the disk"
)
FAULTS = [
    ("No valid host was found. ", FaultClass.CAPACITY, Reason.NO_VALID_HOST),
    (
        "No valid host was found. There are not enough hosts available.",
        FaultClass.CAPACITY,
        Reason.NO_VALID_HOST,
    ),
    (
        "Quota exceeded for instances: Requested 1, but already used 5 of 5 instances",
        FaultClass.CAPACITY,
        Reason.QUOTA_EXCEEDED,
    ),
    ("Maximum number of ports exceeded", FaultClass.CAPACITY, Reason.QUOTA_EXCEEDED),
    (
        "No fixed IP addresses available for network: 5d8b",
        FaultClass.CAPACITY,
        Reason.QUOTA_EXCEEDED,
    ),
    ("No more IP addresses available on network 5d8b.", FaultClass.CAPACITY, Reason.QUOTA_EXCEEDED),
    (ANTI_AFFINITY, FaultClass.CAPACITY, Reason.NO_VALID_HOST),
    (
        "Insufficient compute resources: Free vcpu 0.00 VCPU < requested 4 VCPU.",
        FaultClass.CAPACITY,
        Reason.NO_VALID_HOST,
    ),
    (
        "Exceeded maximum number of retries. Exhausted all hosts available for instance 5d8b.",
        FaultClass.HOSTS,
        Reason.BUILD_FAULT,
    ),
    (BAD_DISK, FaultClass.VM, Reason.BUILD_FAULT),
    ("Image 77 is unacceptable: not a qcow2", FaultClass.VM, Reason.BUILD_FAULT),
    ("", FaultClass.VM, Reason.BUILD_FAULT),
]


@pytest.mark.parametrize(("text", "kind", "reason"), FAULTS)
def test_faults_are_told_apart_by_their_text(text: str, kind: FaultClass, reason: Reason) -> None:
    server = read_server(a_record(status="ERROR", fault={"code": 500, "message": text}), HERE)

    assert server.fault is not None
    assert (server.fault.kind, server.fault.reason) == (kind, reason)
    assert server.fault.message


def test_every_text_of_the_table_has_a_case() -> None:
    for known in FAULT_TEXTS:
        assert any(known.text in text.lower() for text, _, _ in FAULTS), known.text


def test_a_stale_fault_of_a_server_that_runs_is_not_told() -> None:
    assert read_server(a_record(fault={"message": "No valid host was found"}), HERE).fault is None


def test_fault_texts_are_bounded() -> None:
    assert len(read_fault("very bad " * 1000).message) == MAX_TEXT


SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQ="  # noqa: S105 - a made-up one

WHOLE_BODY = (
    f"Invalid input for field/attribute server. Value: {{'name': 'a', 'user_data': {SECRET!r}}}. "
    "'networks' is a required property"
)


@pytest.mark.parametrize(
    "text",
    [
        f"Invalid input for field/attribute user_data. Value: {SECRET}. {SECRET!r} is too long",
        WHOLE_BODY,
        f"Invalid input for field/attribute a.b.c. Value: {SECRET} {SECRET[3:]}",
        f"user_data {SECRET} is bad",
        f"the beginning {'A' * 300} of one that was cut",
    ],
)
def test_no_text_repeats_user_data(text: str) -> None:
    shown = clean(text, (SECRET,))

    assert SECRET[3:] not in shown
    assert "A" * 120 not in shown
    assert shown


def test_what_nova_found_wrong_survives_the_cleaning() -> None:
    text = f"Invalid input for field/attribute user_data. Value: {SECRET}. {SECRET!r} is too long"

    assert clean(text) == "Invalid input for field/attribute user_data: the value is too long"


def test_texts_are_one_bounded_line_without_passwords_of_urls() -> None:
    shown = clean("cannot reach\r\n\x1b[31mhttp://me:hush@nova/ " + "now " * 500)

    assert shown.startswith("cannot reach [31mhttp://nova/ now")
    assert len(shown) == MAX_TEXT


@pytest.mark.parametrize("body", [b"", b"<html>500</html>", b"[]", b'{"forbidden": "no"}', b"3"])
def test_an_error_page_that_is_not_novas_is_not_quoted(body: bytes) -> None:
    assert error_text(body) == "no explanation in Nova's form"


def test_a_page_keeps_ours_and_the_deleted_that_lost_their_tags() -> None:
    gone = a_record(id="gone", status="DELETED", tags=[])
    other = a_record(id="other", tags=["team=x"])

    page = read_page(a_page(a_record(), gone, other), DATE, HERE)

    assert [s.id for s in page.ours] == [a_record()["id"]]
    assert [s.id for s in page.deleted] == ["gone"]
    assert page.marker is None
    assert not page.fragments


def test_a_fragment_of_a_down_cell_is_told_because_it_could_be_ours() -> None:
    fragment = {"id": "x", "status": "UNKNOWN", "tenant_id": "t", "created": "2026-11-20T22:24:52Z"}

    assert read_page(a_page(fragment), DATE, HERE).fragments


def test_of_the_link_to_the_next_page_only_the_marker_counts() -> None:
    link = {"rel": "next", "href": "http://evil.example/v2.1/servers?limit=2&marker=m%2F1"}

    assert read_page(a_page(servers_links=[link]), DATE, HERE).marker == "m/1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"servers": null}',
        b'{"servers": [1]}',
        b'{"servers": [{"status": "DELETED"}]}',
        b'{"servers": [], "servers_links": [{"rel": "next"}]}',
        b'{"servers": [], "servers_links": [{"rel": "next", "href": "http://nova/servers"}]}',
    ],
)
def test_a_page_that_is_none_is_an_error_and_not_an_empty_page(body: bytes) -> None:
    with pytest.raises(CloudUnavailable):
        read_page(body, DATE, HERE)


def test_only_services_that_read_down_make_a_host_dead() -> None:
    services = [
        {"binary": "nova-compute", "host": "h1", "state": "up", "status": "disabled"},
        {"binary": "nova-compute", "host": "h2", "state": "down", "status": "enabled"},
        {"binary": "nova-compute", "state": "down"},
        {"host": ["h3"], "state": "down"},
    ]
    assert read_down_hosts(orjson.dumps({"services": services})) == frozenset({"h2"})


def test_an_answer_without_services_tells_nothing() -> None:
    with pytest.raises(CloudUnavailable):
        read_down_hosts(b"{}")


def test_racks_come_from_the_metadata_of_aggregates() -> None:
    aggregates = [
        {"metadata": {"rack": "r1"}, "hosts": ["h1", "h2", "torn"]},
        {"metadata": {"rack": "r2"}, "hosts": ["h3", "torn"]},
        {"metadata": {"ssd": "yes"}, "hosts": ["h1", "h4"]},
        {"metadata": {"rack": 7}, "hosts": ["h5"]},
        {"metadata": {"rack": "r9"}, "hosts": None},
    ]

    racks = read_racks(orjson.dumps({"aggregates": aggregates}), "rack")

    assert racks == {"h1": "r1", "h2": "r1", "h3": "r2"}
