"""Servers as JSON: by role and by microversion."""

import re
from datetime import datetime

import orjson

from warmpool.sim.listing import status_of
from warmpool.sim.spec import FlavorSpec
from warmpool.sim.world import Host, Server, World, named_id

Version = tuple[int, int]

PROGRESSING = frozenset({"ACTIVE", "BUILD", "REBUILD", "MIGRATING"})
"""Statuses with which Nova tells a progress."""


def second(moment: datetime) -> str:
    """As Nova writes `created` and `updated`."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def micro(moment: datetime | None) -> str | None:
    """As Nova writes most other times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000000") if moment else None


def rack_trait(host: Host) -> str:
    """The trait that names the rack of a host. Placement knows capitals, digits and `_` only."""
    return f"CUSTOM_RACK_{re.sub('[^A-Z0-9]', '_', host.spec.rack.upper())}"


class Views:
    """Renders servers for one site, and remembers what it has rendered."""

    def __init__(self, world: World, base: str) -> None:
        self._world = world
        self._base = base

    def detail(self, server: Server, version: Version, *, admin: bool) -> bytes:
        """One server of a detailed listing."""
        key = (version, admin)
        status = self._world.host_status(server) if admin else ""
        known = server.renderings.get(key)
        if known is not None and known[:2] == (server.version, status):
            return known[2]
        body = orjson.dumps(self._whole(server, version, admin=admin))
        server.renderings[key] = (server.version, status, body)
        return body

    def brief(self, server: Server) -> bytes:
        """One server of a plain listing."""
        return orjson.dumps(
            {"id": server.id, "name": server.name, "links": self.links("servers", server.id)}
        )

    def one(self, server: Server, version: Version, *, admin: bool) -> dict[str, object]:
        """The answer about one server."""
        whole = self._whole(server, version, admin=admin)
        if version >= (2, 71):
            whole["server_groups"] = [server.group] if server.group else []
        return whole

    def links(self, collection: str, ident: str) -> list[dict[str, str]]:
        """Links of a resource of Nova's."""
        return [
            {"rel": "self", "href": f"{self._base}/compute/v2.1/{collection}/{ident}"},
            {"rel": "bookmark", "href": f"{self._base}/compute/{collection}/{ident}"},
        ]

    def flavor(self, ident: str, flavor: FlavorSpec, version: Version) -> dict[str, object]:
        """A flavor in full."""
        body: dict[str, object] = {
            "id": ident,
            "name": flavor.name,
            "ram": flavor.ram_mb,
            "disk": flavor.disk_gb,
            "swap": 0 if version >= (2, 75) else "",
            "OS-FLV-EXT-DATA:ephemeral": 0,
            "OS-FLV-DISABLED:disabled": False,
            "vcpus": flavor.vcpus,
            "os-flavor-access:is_public": True,
            "rxtx_factor": 1.0,
            "links": self.links("flavors", ident),
        }
        if version >= (2, 55):
            body["description"] = None
        if version >= (2, 61):
            body["extra_specs"] = flavor.extra_specs
        return body

    def _whole(self, server: Server, version: Version, *, admin: bool) -> dict[str, object]:
        return {
            **self._core(server, version, admin=admin),
            **self._place(server, version, admin=admin),
            **self._state(server),
            **self._since(server, version, admin=admin),
        }

    def _core(self, server: Server, version: Version, *, admin: bool) -> dict[str, object]:
        status = status_of(server)
        body: dict[str, object] = {
            "accessIPv4": "",
            "accessIPv6": "",
            "addresses": self._addresses(server),
            "created": second(server.created),
            "flavor": self._flavor_of(server, version),
            "hostId": self._world.host_hash(server),
            "id": server.id,
            "image": {
                "id": server.image_id,
                "links": self.links("images", server.image_id)[1:],
            },
            "links": self.links("servers", server.id),
            "metadata": server.metadata,
            "name": server.name,
            "status": status,
            "tenant_id": server.project,
            "user_id": named_id("user", "admin").replace("-", ""),
            "updated": second(server.updated),
            "OS-DCF:diskConfig": "MANUAL",
        }
        if status == "ERROR" and server.fault is not None:
            body["fault"] = self._fault(server, admin=admin)
        if status in PROGRESSING:
            body["progress"] = 0
        return body

    def _place(self, server: Server, version: Version, *, admin: bool) -> dict[str, object]:
        body: dict[str, object] = {
            "OS-EXT-AZ:availability_zone": self._world.zone_of(server),
            "config_drive": "True" if server.config_drive else "",
            "key_name": server.key_name,
            "OS-SRV-USG:launched_at": micro(server.launched),
            "OS-SRV-USG:terminated_at": micro(server.terminated),
        }
        if server.addresses:
            body["security_groups"] = [{"name": name} for name in server.security_groups]
        if admin:
            body["OS-EXT-SRV-ATTR:host"] = server.host
            body["OS-EXT-SRV-ATTR:instance_name"] = f"instance-{server.number:08x}"
            body["OS-EXT-SRV-ATTR:hypervisor_hostname"] = server.host
        if admin and version >= (2, 3):
            body |= self._admin_attributes(server)
        elif version >= (2, 90):
            body["OS-EXT-SRV-ATTR:hostname"] = server.hostname
        return body

    def _admin_attributes(self, server: Server) -> dict[str, object]:
        prefix = "OS-EXT-SRV-ATTR:"
        return {
            f"{prefix}hostname": server.hostname,
            f"{prefix}kernel_id": "",
            f"{prefix}launch_index": server.launch_index,
            f"{prefix}ramdisk_id": "",
            f"{prefix}reservation_id": server.reservation,
            f"{prefix}root_device_name": "/dev/vda" if server.host else None,
            f"{prefix}user_data": server.user_data,
        }

    def _state(self, server: Server) -> dict[str, object]:
        return {
            "OS-EXT-STS:task_state": server.task,
            "OS-EXT-STS:vm_state": server.vm_state,
            "OS-EXT-STS:power_state": server.power,
            "os-extended-volumes:volumes_attached": [],
        }

    def _since(self, server: Server, version: Version, *, admin: bool) -> dict[str, object]:
        """What later microversions have added."""
        pinned = server.zone_asked or None
        added: tuple[tuple[Version, str, object], ...] = (
            ((2, 9), "locked", server.locked),
            ((2, 19), "description", server.description),
            ((2, 26), "tags", server.tags),
            ((2, 63), "trusted_image_certificates", None),
            ((2, 73), "locked_reason", None),
            ((2, 96), "pinned_availability_zone", pinned),
        )
        body = {key: value for since, key, value in added if version >= since}
        if admin and version >= (2, 16):
            body["host_status"] = self._world.host_status(server)
        return body

    def _fault(self, server: Server, *, admin: bool) -> dict[str, object]:
        fault = server.fault
        if fault is None:
            return {}
        body: dict[str, object] = {
            "code": fault.code,
            "created": second(fault.created),
            "message": fault.message,
        }
        return {**body, "details": fault.details} if admin else body

    def _flavor_of(self, server: Server, version: Version) -> dict[str, object]:
        flavor, ident = server.flavor, self._world.flavor_id(server)
        if version < (2, 47):
            return {"id": ident, "links": self.links("flavors", ident)[1:]}
        return {
            "vcpus": flavor.vcpus,
            "ram": flavor.ram_mb,
            "disk": flavor.disk_gb,
            "ephemeral": 0,
            "swap": 0,
            "original_name": flavor.name,
            "extra_specs": flavor.extra_specs,
        }

    def _network_name(self, ident: str) -> str:
        """Its id if the network itself is gone."""
        network = self._world.networks.get(ident)
        return network.name if network else ident

    def _addresses(self, server: Server) -> dict[str, object]:
        return {
            self._network_name(network): [
                {
                    "version": 4,
                    "addr": address,
                    "OS-EXT-IPS:type": "fixed",
                    "OS-EXT-IPS-MAC:mac_addr": mac(address),
                }
            ]
            for network, address in server.addresses.items()
        }


def mac(address: str) -> str:
    """A hardware address that belongs to an IPv4 address."""
    return "fa:16:" + ":".join(f"{int(part):02x}" for part in address.split("."))
