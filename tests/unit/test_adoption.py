"""Which servers a pool can take for its own."""

from dataclasses import replace
from typing import Any

import pytest

from builders import a_pool, a_server
from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER
from warmpool.domain.adoption import Existing
from warmpool.domain.cloud import BuildSpec, NetworkChoice, ServerState
from warmpool.domain.ids import ServerId
from warmpool.planning.adoption import MAX_TAGS, unmarked, verdicts

SPEC = BuildSpec("f-1", "i-1", NetworkChoice.AUTO)
POOL = a_pool(replicas=5)
PRIVATE = frozenset({"private"})


def existing(number: int = 1, **fields: Any) -> Existing:
    server = a_server(number, owner=None)
    facts: dict[str, Any] = {
        "server": server,
        "flavor_id": "f-1",
        "image_id": "i-1",
        "key_pair": "",
        "networks": PRIVATE,
        "tags": frozenset(),
    }
    return Existing(**(facts | fields))


def why_not(each: Existing, pool: Any = POOL, spec: BuildSpec = SPEC) -> str:
    (verdict,) = verdicts(pool, spec, [each], owned={}, room=1)
    return verdict.why_not


def test_a_server_of_the_template_can_be_adopted() -> None:
    assert why_not(existing()) == ""


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (existing(flavor_id="f-2"), "another flavor"),
        (existing(image_id="i-2"), "another image"),
        (existing(image_id=""), "from a volume"),
        (existing(key_pair="ops"), "key pair 'ops'"),
        (existing(networks=frozenset()), "on no network"),
        (existing(tags=frozenset({f"{TAG_INSTALLATION}x"})), "some installation's"),
        (existing(tags=frozenset({f"{TAG_OWNER}x"})), "some installation's"),
        (existing(tags=frozenset(map(str, range(MAX_TAGS - 1)))), "no room for ours"),
        (existing(server=a_server(1, ServerState.STOPPED, status="SHUTOFF")), "it is SHUTOFF"),
        (existing(server=a_server(1, busy=True)), "at rest"),
    ],
)
def test_what_differs_is_told(each: Existing, said: str) -> None:
    assert said in why_not(each)


def test_zone_key_pair_and_networks_are_the_templates() -> None:
    there = a_pool(replicas=5, availabilityZones=["az2"])
    assert "zone 'az1'" in why_not(existing(), there)
    assert "no key pair" in why_not(existing(), spec=replace(SPEC, key_pair="ops"))
    template = {"flavor": "f", "image": "i", "networks": []}
    none = a_pool(replicas=5, template=template)
    assert "on 1 networks" in why_not(existing(), none)
    assert why_not(existing(networks=frozenset()), none) == ""


def test_no_more_are_taken_than_the_pool_wants_and_those_are_told_first() -> None:
    servers = [existing(n) for n in (3, 1, 2)] + [existing(0, flavor_id="f-2")]
    found = verdicts(POOL, SPEC, servers, owned={}, room=2)
    assert [v.server for v in found if not v.why_not] == ["server-1", "server-2"]
    assert "wants no more" in found[-1].why_not


def test_a_server_of_a_warmvm_is_not_taken_again_but_marked_if_it_is_not() -> None:
    each = existing()
    owned = {ServerId("server-1"): "search/data-1"}
    (verdict,) = verdicts(POOL, SPEC, [each], owned=owned, room=1)
    assert verdict.why_not == "it is WarmVM search/data-1's already"
    assert unmarked([each], owned) == [each]
    assert unmarked([replace(each, server=a_server(1))], owned) == []
