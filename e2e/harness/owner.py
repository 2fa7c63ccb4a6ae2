"""A child's work: what only the owner of a cloud may do to it. Needs the admin role.

`python owner.py CLOUD DEED [ARGUMENT...]` uses the clouds.yaml of $OS_CLIENT_CONFIG_FILE, and
prints its answer as JSON.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import openstack

ROOM = {"ram": 128, "vcpus": 1, "disk": 1}


def quota(cloud: Any, *number: str) -> Any:
    """How many servers the project may have and has; with a number, so many from now on."""
    path = f"/os-quota-sets/{cloud.current_project_id}"
    detail = cloud.compute.get(f"{path}/detail")
    detail.raise_for_status()
    instances = detail.json()["quota_set"]["instances"]
    if number:
        body = {"quota_set": {"instances": int(number[0])}}
        cloud.compute.put(path, json=body).raise_for_status()
    return {"limit": instances["limit"], "used": instances["in_use"]}


def hosts(cloud: Any, *state: str) -> Any:
    """The hypervisors; with `enabled` or `disabled`, all of them are that."""
    services = list(cloud.compute.services(binary="nova-compute"))
    for service in services if state else ():
        body = {"status": state[0]}
        cloud.compute.put(
            f"/os-services/{service.id}", json=body, microversion="2.53"
        ).raise_for_status()
    return [service.host for service in services]


def change(cloud: Any, server: str, what: str) -> Any:
    """Change a server behind everybody's back."""
    found = cloud.compute.find_server(server, ignore_missing=False)
    match what:
        case "wipe":
            cloud.compute.delete_server(found, force=True)
        case "rename":
            cloud.compute.update_server(found, name=f"renamed-{server}")
        case "untag":
            cloud.compute.delete(f"/servers/{found.id}/tags", microversion="2.26")
            cloud.compute.put(f"/servers/{found.id}/metadata", json={"metadata": {}})
        case "move":
            cloud.compute.live_migrate_server(found, host=None, block_migration="auto")
        case _:
            raise ValueError(what)
    return found.id


def make(cloud: Any, kind: str, name: str) -> Any:
    """An image or a flavor of this name."""
    if kind == "flavor":
        return cloud.compute.create_flavor(name=name, **ROOM).id
    formats = {"disk_format": "raw", "container_format": "bare"}
    return cloud.image.create_image(name=name, data=bytes(4096), wait=True, **formats).id


def remove(cloud: Any, kind: str, name: str) -> Any:
    """Delete it, if it is there."""
    if kind == "flavor":
        found = cloud.compute.find_flavor(name)
        return found and cloud.compute.delete_flavor(found)
    found = cloud.image.find_image(name)
    return found and cloud.image.delete_image(found)


DEEDS: dict[str, Callable[..., Any]] = {
    deed.__name__: deed for deed in (quota, hosts, change, make, remove)
}


def main() -> None:
    name, deed, *arguments = sys.argv[1:]
    json.dump(DEEDS[deed](openstack.connect(cloud=name), *arguments), sys.stdout)


if __name__ == "__main__":
    main()
