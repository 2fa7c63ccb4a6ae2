"""What a cloud offers, as the demo is told it."""

import json
from typing import Any

from warmpool.cli.survey import survey
from warmpool.effects.nova_calls import Call, Service


class Answers:
    """A `Lookup` that answers by path. A path that is not there is a 404."""

    def __init__(self, answers: dict[str, Any], *, neutron: bool = True) -> None:
        self._answers = answers
        self._neutron = neutron

    async def body(self, call: Call) -> bytes | None:
        found = self._answers.get(call.path)
        return None if found is None else json.dumps(found).encode()

    async def has(self, service: Service) -> bool:
        return self._neutron or service is not Service.NETWORK


CLOUD = {
    "/flavors/detail": {"flavors": [{"id": "f", "name": "m1", "vcpus": 1, "ram": 2, "disk": 3}]},
    "/os-availability-zone": {
        "availabilityZoneInfo": [
            {"zoneName": "az1", "zoneState": {"available": True}},
            {"zoneName": "az2", "zoneState": {"available": False}},
        ]
    },
    "/networks": {
        "networks": [
            {"id": "e", "name": "public", "router:external": True},
            {"id": "n", "name": "private", "router:external": False},
        ]
    },
    "/servers/detail": {"servers": [{"id": "s", "name": "web", "tags": ["a"], "status": "ACTIVE"}]},
    "/limits": {"limits": {"absolute": {"maxTotalInstances": 10, "totalInstancesUsed": 4}}},
}


async def test_what_servers_can_be_built_from_and_where() -> None:
    found = await survey(Answers(CLOUD))
    assert [flavor["name"] for flavor in found["flavors"]] == ["m1"]
    assert found["zones"] == ["az1"]
    assert found["networks"] == [{"id": "n", "name": "private"}]
    assert found["servers"] == [{"id": "s", "name": "web", "tags": ["a"]}]
    assert found["instances_left"] == 6
    assert found["images"] == []


async def test_a_cloud_without_a_network_service_has_no_networks() -> None:
    assert (await survey(Answers(CLOUD, neutron=False)))["networks"] == []


async def test_a_quota_without_bound_leaves_none() -> None:
    limits = {"limits": {"absolute": {"maxTotalInstances": -1, "totalInstancesUsed": 4}}}
    found = await survey(Answers({**CLOUD, "/limits": limits}))
    assert found["instances_left"] is None
