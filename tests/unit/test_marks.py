"""What stands on a server about its use is read as it was written, and garbage as nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmpool.api.names import META_CLAIM_UID, META_OWNER, META_POOL, META_PREFIX
from warmpool.api.v1alpha1.vm import ClaimRef
from warmpool.domain.ids import Ref, VmUid
from warmpool.domain.marks import (
    FREE,
    MAX_VALUE,
    UNMARKED,
    Marks,
    claimed_by,
    owned_by,
    read_marks,
)

POOL = Ref("search", "es-data")
CLAIM = ClaimRef(namespace="search", name="logs-7", uid="u-1", request="data")


def test_what_was_written_is_read() -> None:
    owner = VmUid("vm-2")
    metadata = {"mine": "too"} | claimed_by(CLAIM, POOL) | owned_by(owner)
    assert read_marks(metadata) == Marks(POOL, CLAIM, owner)


def test_a_mark_that_was_taken_off_is_none() -> None:
    """Metadata are only ever added to: an item without a value is none."""
    assert read_marks(claimed_by(CLAIM, POOL) | FREE) is UNMARKED


def test_all_keys_are_ours_and_all_values_fit() -> None:
    long = ClaimRef(namespace="n" * 63, name="c" * 253, uid="u" * 63, request="r" * 63)
    written = claimed_by(long, Ref("n" * 63, "p" * 50)) | owned_by(VmUid("v" * 36))
    assert all(key.startswith(META_PREFIX) and "/" not in key for key in written)
    assert all(len(value) <= MAX_VALUE for value in written.values())


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        "text",
        [],
        {},
        {META_POOL: "no-namespace"},
        {META_POOL: "no-name/"},
        {META_POOL: ["search/es-data"]},
        {META_OWNER: None},
        {META_CLAIM_UID: 7},
        {META_POOL: "x" * 10_000},
        {5: 5},
    ],
    ids=str,
)
def test_garbage_is_no_mark(metadata: Any) -> None:
    read = read_marks(metadata)
    assert (read.pool, read.claim, read.owner) == (None, None, None)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_nothing_in_metadata_is_an_error(metadata: dict[str, Any]) -> None:
    read_marks(metadata)


def test_a_claim_whose_name_is_lost_is_a_claim() -> None:
    found = read_marks({META_CLAIM_UID: "u-1"}).claim
    assert found == ClaimRef(namespace="", name="", uid="u-1", request="")
