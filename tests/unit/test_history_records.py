"""Records: as text and back, and what they are searched by."""

import pytest

from builders import NOW, POOL, a_place
from warmpool.api.names import Reason
from warmpool.domain.history import (
    AskRecord,
    BuildRecord,
    ClaimRecord,
    Facet,
    LeadershipRecord,
    Machine,
    Phases,
    Record,
    ReleaseRecord,
    RemovalRecord,
    Result,
    facets,
)
from warmpool.domain.history_text import from_text, to_text
from warmpool.domain.ids import Ref
from warmpool.domain.spans import step_of

VM = Machine("vm-1", Ref("search", "data-1"), POOL, "server-1", "m1.micro", a_place())
CLAIM = Ref("logs", "logs-7")

RECORDS: list[Record] = [
    BuildRecord(
        id="build:vm-1:1",
        at=NOW,
        vm=VM,
        image="debian-13",
        result=Result.FAILED,
        attempt=2,
        took=61.5,
        reason=Reason.LAUNCH_TIMEOUT,
        blame="vm",
        message='not "ready" within 15m',
        phases=Phases(queued=0.01, post=0.3, scheduling=1.0, spawning=40.0),
    ),
    RemovalRecord("removal:vm-1:c", NOW, VM, Reason.BOUND, CLAIM, "c", 3600.0),
    RemovalRecord("removal:vm-1:", NOW, VM, Reason.TOO_OLD),
    ClaimRecord(
        id="claim:c",
        at=NOW,
        claim=CLAIM,
        uid="c",
        asks=(AskRecord("data", POOL, 12), AskRecord("master", Ref("search", "master"), 3)),
        mode="RackAware",
        on_unsatisfied="Fail",
        result=Result.REFUSED,
        reason=Reason.NOT_ENOUGH_RACKS,
        message="3 racks have ready VMs, 5 are needed",
        wait=0.021,
    ),
    ReleaseRecord("release:vm-1:c", NOW, VM, CLAIM, "c", "Delete"),
    LeadershipRecord("leadership:3:a:ended", NOW, "a", 3, Result.ENDED, 86400.0),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.id)
def test_a_record_comes_back_from_its_text(record: Record) -> None:
    text = to_text(record)
    assert "\n" not in text
    assert from_text(text) == record
    assert to_text(from_text(text)) == text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind":"feast"}', '{"kind":"build"}'])
def test_what_is_no_record_is_told_as_such(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        from_text(text)


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.id)
def test_facets_that_are_empty_are_left_out(record: Record) -> None:
    assert all(facets(record).values())
    assert facets(record)[Facet.KIND] == record.kind


def test_a_claim_counts_by_its_wait_and_all_its_pools() -> None:
    claim = RECORDS[3]
    assert isinstance(claim, ClaimRecord)
    assert claim.size == 15
    found = facets(claim)
    assert found[Facet.SPAN] == str(step_of(0.021))
    assert found[Facet.POOL] == "search/data,search/master"
    assert found[Facet.NAMESPACE] == "logs"


def test_a_span_that_was_not_seen_has_no_step() -> None:
    assert Facet.SPAN not in facets(RECORDS[2])
