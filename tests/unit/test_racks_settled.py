"""What several sources say of racks, brought together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmpool.api.names import Reason
from warmpool.domain.racks import RackReport, Telling
from warmpool.planning.racks import finding, host_id, is_doubtful, settle

HOSTS = ("h1", "h2", "h3")


def test_the_first_source_that_names_a_rack_is_followed() -> None:
    chain = [Telling("a", {"h1": "", "h2": "r2"}), Telling("b", {"h1": "r1", "h2": "r9"})]
    settled = settle(chain, ("h1", "h2"), {})
    assert settled.racks == {"h1": "r1", "h2": "r2"}
    assert not settled.pending


def test_a_source_that_is_empty_when_it_begins_hands_nobody_to_the_next() -> None:
    """Else a takeover while an inventory is being restored would move all VMs to other racks."""
    chain = [Telling("cms", {"h1": ""}), Telling("pattern", {"h1": "other"})]
    assert settle(chain, ("h1",), {"h1": "r1"}, doubted=True).racks == {"h1": "r1"}
    assert settle(chain, ("h1",), {}, doubted=True).racks == {"h1": "other"}
    assert settle(chain, ("h1",), {"h1": "r1"}).racks == {"h1": "other"}


def test_sources_that_contradict_each_other_are_told_of() -> None:
    chain = [Telling("a", {"h1": "r1"}), Telling("b", {"h1": ""}), Telling("c", {"h1": "r9"})]
    assert settle(chain, ("h1",), {}).contradictions == ("h1: a says 'r1', c 'r9'",)


def test_sources_that_agree_are_not() -> None:
    chain = [Telling("a", {"h1": "r1"}), Telling("b", {"h1": "r1"})]
    assert settle(chain, ("h1",), {}).contradictions == ()


def test_a_host_that_all_sources_know_nothing_of_is_in_no_rack() -> None:
    settled = settle([Telling("a", {"h1": ""})], ("h1",), {"h1": "r1"})
    assert settled.racks == {"h1": ""}


def test_what_was_known_stands_until_whoever_counts_more_has_answered() -> None:
    """Else each takeover with a slow CMS would write all VMs to the racks of the next source."""
    chain = [Telling("cms", {}), Telling("pattern", {"h1": "other"})]
    settled = settle(chain, ("h1",), {"h1": "r1"})
    assert settled.racks == {"h1": "r1"}
    assert settled.pending == {"h1"}


def test_where_nothing_was_known_the_next_source_does_meanwhile() -> None:
    settled = settle([Telling("cms", {}), Telling("pattern", {"h1": "r1"})], ("h1",), {})
    assert settled.racks == {"h1": "r1"}
    assert settled.pending == {"h1"}


def test_whoever_counts_less_is_not_waited_for() -> None:
    settled = settle([Telling("pattern", {"h1": "r1"}), Telling("cms", {})], ("h1",), {})
    assert not settled.pending


def test_a_host_that_nobody_has_told_of_is_not_known_to_be_in_no_rack() -> None:
    settled = settle([Telling("cms", {})], ("h1",), {})
    assert settled.racks == {}
    assert settled.pending == {"h1"}


racks = st.dictionaries(st.sampled_from(HOSTS), st.sampled_from(["", "r1", "r2"]))


@given(st.lists(racks, max_size=3), racks)
def test_no_rack_is_made_up_and_only_what_is_settled_is_unknown(
    said: list[dict[str, str]], recalled: dict[str, str]
) -> None:
    chain = [Telling(f"s{n}", one) for n, one in enumerate(said)]
    settled = settle(chain, HOSTS, recalled)
    for host in HOSTS:
        offered = {one[host] for one in [*said, recalled] if host in one}
        assert settled.racks.get(host, "") in offered | {""}
        if host not in settled.pending:
            named = [one[host] for one in said if one.get(host)]
            assert settled.racks[host] == (named[0] if named else "")
        else:
            assert any(host not in one for one in said)


@pytest.mark.parametrize(
    ("now", "doubtful"),
    [
        pytest.param({"h1": "", "h2": "", "h3": ""}, True, id="all"),
        pytest.param({"h1": "", "h2": "", "h3": "r1"}, True, id="most"),
        pytest.param({"h1": "", "h2": "r1", "h3": "r1"}, False, id="one"),
        pytest.param({"h1": "r9", "h2": "r9", "h3": "r9"}, False, id="moved"),
        pytest.param({}, False, id="unanswered"),
    ],
)
def test_a_source_that_forgets_most_hosts_is_doubted(now: dict[str, str], doubtful: bool) -> None:
    assert is_doubtful(dict.fromkeys(HOSTS, "r1"), now) is doubtful


def test_a_source_that_knew_nothing_can_forget_nothing() -> None:
    assert not is_doubtful({"h1": ""}, {"h1": ""})


def test_a_host_s_name_and_the_project_make_its_host_id() -> None:
    """Nova's own formula (`nova.utils.generate_hostid`)."""
    assert host_id("0123456789abcdef", "compute-1") == (
        "d59796b5f5bf935ee2158fdefa7bbace7ba0963ed9761b13bb3422d3"
    )


KNOWN = RackReport(hosts=4, looked=True)


@pytest.mark.parametrize(
    ("report", "holds", "reason", "says"),
    [
        pytest.param(KNOWN, True, Reason.RACKS_KNOWN, "all 4 hosts", id="known"),
        pytest.param(RackReport(), None, Reason.RACKS_UNKNOWN, "not looked at", id="new"),
        pytest.param(
            RackReport(hidden="403"), None, Reason.RACKS_UNKNOWN, "403", id="hidden from members"
        ),
        pytest.param(
            RackReport(4, unlisted="503", silent=("cms: 500",), looked=True),
            False,
            Reason.INVENTORY_UNAVAILABLE,
            "the hosts cannot be listed: 503; what was known before stands",
            id="unlisted",
        ),
        pytest.param(
            RackReport(4, wrong="racks.yaml: x"),
            False,
            Reason.RACK_CONFIG_INVALID,
            "racks.yaml: x",
            id="wrong",
        ),
        pytest.param(
            RackReport(4, silent=("cms: 500",), looked=True),
            False,
            Reason.RACK_SOURCE_SILENT,
            "cms: 500; what was known before stands",
            id="silent",
        ),
        pytest.param(
            RackReport(4, contradictions=("h1", "h2", "h3", "h4", "h5"), looked=True),
            False,
            Reason.RACKS_CONTRADICT,
            "h1; h2; h3 and 2 more",
            id="contradictions",
        ),
        pytest.param(
            RackReport(4, unknown=("h1", "h2"), looked=True),
            False,
            Reason.RACKS_UNKNOWN,
            "2 of 4 hosts are in no rack that a source knows: h1, h2",
            id="unknown",
        ),
    ],
)
def test_what_a_pool_says_of_racks(
    report: RackReport, holds: bool | None, reason: Reason, says: str
) -> None:
    assert finding(report)[:2] == (holds, reason)
    assert says in finding(report)[2]
