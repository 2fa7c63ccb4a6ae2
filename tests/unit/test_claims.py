"""What claims ask for, in which order they are served, who may ask, and for how long."""

from datetime import timedelta

import pytest

from builders import NOW, POOL, a_claim, a_pool, after
from warmpool.api.names import Reason
from warmpool.domain.claims import Ask, Domain, Limit, Undecided
from warmpool.domain.ids import Ref
from warmpool.planning.claims import (
    UNKNOWN_NAMESPACE,
    deadline,
    demand_of,
    in_order,
    lifetime,
    refusal,
    reserve_for,
)

TWO = [
    {"name": "data", "pool": {"name": "data"}, "count": 4},
    {"name": "master", "pool": {"name": "data", "namespace": "infra"}, "count": 3},
]


def test_a_claim_asks_its_own_namespace_unless_it_names_another() -> None:
    assert demand_of(a_claim(requests=TWO)).asks == (
        Ask("data", POOL, 4),
        Ask("master", Ref("infra", "data"), 3),
    )


def test_a_mode_and_constraints_must_all_hold() -> None:
    claim = a_claim(
        requests=TWO,
        mode="RackAware",
        constraints=[{"domain": "zone", "requests": ["master"], "minDomains": 2, "maxSkew": 1}],
    )
    assert demand_of(claim).limits == (
        Limit(Domain.RACK, frozenset({"data", "master"}), max_per_domain=1),
        Limit(Domain.ZONE, frozenset({"master"}), min_domains=2, max_skew=1),
    )


def test_a_constraint_that_names_no_request_is_about_all_of_them() -> None:
    claim = a_claim(requests=TWO, constraints=[{"domain": "hypervisor", "maxPerDomain": 2}])
    (limit,) = demand_of(claim).limits
    assert limit.asks == frozenset({"data", "master"})


def test_priority_goes_before_age_and_age_before_names() -> None:
    claims = [
        a_claim("c", created=NOW),
        a_claim("b", created=after(-1)),
        a_claim("a", created=NOW),
        a_claim("urgent", created=after(9), priority=5),
    ]
    assert [c.ref.name for c in in_order(claims)] == ["urgent", "b", "a", "c"]


def test_only_claims_of_high_priority_may_take_the_reserve() -> None:
    pool = a_pool(reserve=2)
    assert reserve_for(a_claim(priority=999), pool) == 2
    assert reserve_for(a_claim(priority=1000), pool) == 0


def test_a_claim_is_given_up_after_its_timeout() -> None:
    assert deadline(a_claim(timeout="90s")) == after(90)


@pytest.mark.parametrize(
    ("rule", "namespace", "labels", "served"),
    [
        pytest.param({"from": "Same"}, "search", {}, True, id="same, from the same"),
        pytest.param({"from": "Same"}, "logs", {}, False, id="same, from another"),
        pytest.param({"from": "All"}, "logs", {}, True, id="all"),
        pytest.param(
            {"from": "Selector", "matchLabels": {"team": "a"}},
            "logs",
            {"team": "a", "env": "x"},
            True,
            id="the labels match",
        ),
        pytest.param(
            {"from": "Selector", "matchLabels": {"team": "a"}},
            "logs",
            {"team": "b"},
            False,
            id="the labels do not match",
        ),
        pytest.param(
            {"from": "Selector", "matchLabels": {"team": "a"}}, "search", {}, True, id="its own"
        ),
    ],
)
def test_a_pool_serves_the_namespaces_that_it_names(
    rule: dict[str, object], namespace: str, labels: dict[str, str], served: bool
) -> None:
    claim = a_claim(ref=Ref(namespace, "logs"))
    pool = a_pool(claims={"namespaces": rule})
    found = refusal(claim, [a_pool(Ref(namespace, "own")), pool], {namespace: labels})
    assert (found is None) is served
    if found is not None:
        assert found.reason is Reason.NOT_PERMITTED
        assert repr(namespace) in found.message


def test_nobody_is_refused_for_labels_that_are_not_known() -> None:
    """A refusal is for good, and the claim may be known before its namespace."""
    pool = a_pool(claims={"namespaces": {"from": "Selector", "matchLabels": {"a": "b"}}})
    assert refusal(a_claim(ref=Ref("logs", "x")), [pool], {}) == Undecided(UNKNOWN_NAMESPACE)
    assert refusal(a_claim(ref=Ref(pool.ref.namespace, "x")), [pool], {}) is None


@pytest.mark.parametrize(
    ("own", "default", "most", "kept"),
    [
        pytest.param(None, "0s", "0s", None, id="nobody names an end"),
        pytest.param("0s", "1h", "0s", None, id="zero means without end, and is not unset"),
        pytest.param(None, "1h", "0s", 60, id="the pool's default"),
        pytest.param("2h", "1h", "0s", 120, id="the claim's own"),
        pytest.param("2h", "0s", "30m", 30, id="never longer than the pool's maximum"),
        pytest.param("0s", "0s", "30m", 30, id="the maximum bounds what has no end"),
    ],
)
def test_how_long_a_claim_keeps_its_vms(
    own: str | None, default: str, most: str, kept: int | None
) -> None:
    pool = a_pool(claims={"defaultLifetime": default, "maxLifetime": most})
    expected = None if kept is None else timedelta(minutes=kept)
    assert lifetime(a_claim(lifetime=own), [pool]) == expected


def test_of_several_pools_the_shortest_end_counts() -> None:
    pools = [
        a_pool(claims={"defaultLifetime": "2h"}),
        a_pool(claims={"defaultLifetime": "3h", "maxLifetime": "1h"}),
    ]
    assert lifetime(a_claim(), iter(pools)) == timedelta(hours=1)
