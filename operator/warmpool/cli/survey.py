"""`python -m warmpool.cli.survey`: what a cloud offers to build from, as JSON.

For whoever has to choose a flavor, an image, a network and zones for a pool: the demo does. The
text of a clouds.yaml comes in on stdin, so that no credentials stand in a command line. The answer
also lists the project's servers with their tags, which shows what an installation has left there.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from warmpool.domain.errors import CloudConfigInvalid, CloudError
from warmpool.domain.ids import InstallationId
from warmpool.effects.nova import open_cloud
from warmpool.effects.nova_calls import Call, Lookup, Service

PAGE: Final = {"limit": "1000"}
"""As much as one answer may hold with Nova's and Glance's defaults: enough to choose from."""

Record = dict[str, Any]


async def survey(lookup: Lookup) -> Record:
    """Flavors, images, networks, zones and servers, and how many instances are still allowed.

    Raises:
        CloudError: the cloud cannot be reached, or refuses the credentials.
    """
    flavors = await _records(lookup, Call("list flavors", "/flavors/detail", query=PAGE), "flavors")
    active = {**PAGE, "status": "active"}
    images = Call("list images", "/images", service=Service.IMAGE, query=active)
    zones = Call("list zones", "/os-availability-zone")
    servers = Call("list servers", "/servers/detail", query=PAGE)
    return {
        "flavors": [_kept(f, "id", "name", "vcpus", "ram", "disk") for f in flavors],
        "images": [
            _kept(image, "id", "name", "size", "min_ram", "min_disk")
            for image in await _records(lookup, images, "images")
        ],
        "networks": await _networks(lookup),
        "zones": [
            zone["zoneName"]
            for zone in await _records(lookup, zones, "availabilityZoneInfo")
            if zone["zoneState"]["available"]
        ],
        "servers": [
            _kept(server, "id", "name", "tags")
            for server in await _records(lookup, servers, "servers")
        ],
        "instances_left": await _instances_left(lookup),
    }


async def _networks(lookup: Lookup) -> list[Record]:
    """The networks that servers can be put on. A cloud may have none at all."""
    if not await lookup.has(Service.NETWORK):
        return []
    call = Call("list networks", "/networks", service=Service.NETWORK)
    found = await _records(lookup, call, "networks")
    return [_kept(n, "id", "name") for n in found if not n.get("router:external")]


async def _instances_left(lookup: Lookup) -> int | None:
    """None: no bound."""
    body = await lookup.body(Call("get limits", "/limits"))
    limits = json.loads(body or b"{}").get("limits", {}).get("absolute", {})
    most, used = limits.get("maxTotalInstances", -1), limits.get("totalInstancesUsed", 0)
    return None if most < 0 else most - used


async def _records(lookup: Lookup, call: Call, key: str) -> list[Record]:
    body = await lookup.body(call)
    records: list[Record] = json.loads(body or b"{}").get(key, [])
    return records


def _kept(record: Record, *keys: str) -> Record:
    return {key: record.get(key) for key in keys}


async def _ask(clouds_yaml: str, cloud: str) -> Record:
    nova = open_cloud(clouds_yaml, cloud, installation=InstallationId("survey"))
    try:
        return await survey(nova)
    finally:
        await nova.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Print the survey; the exit status is 1 if the cloud does not answer."""
    parser = argparse.ArgumentParser(prog="python -m warmpool.cli.survey")
    parser.add_argument("cloud", help="name of the cloud in the clouds.yaml on stdin")
    cloud = parser.parse_args(argv).cloud
    try:
        found = asyncio.run(_ask(sys.stdin.read(), cloud))
    except (CloudConfigInvalid, CloudError) as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyError, TypeError, ValueError) as error:
        print(f"the cloud's answer is not understood: {error!r}", file=sys.stderr)
        return 1
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
