"""Named worlds, and worlds from YAML files."""

from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError

from warmpool.sim.spec import (
    UNLIMITED,
    FlavorSpec,
    HostSpec,
    ImageSpec,
    KeyPairSpec,
    NetworkSpec,
    QuotaSpec,
    Timings,
    WorldSpec,
)

FLAVORS: Final = (
    FlavorSpec(name="m1.micro", vcpus=1, ram_mb=128, disk_gb=1),
    FlavorSpec(name="m1.small", vcpus=1, ram_mb=1024, disk_gb=10),
    FlavorSpec(name="g2-master-4", vcpus=4, ram_mb=8192, disk_gb=40),
    FlavorSpec(name="g2-highmem-16", vcpus=16, ram_mb=65_536, disk_gb=200),
    FlavorSpec(name="m1.huge", vcpus=999, ram_mb=1_000_000, disk_gb=1_000_000),
)
IMAGES: Final = (
    ImageSpec(name="debian-13", properties={"os_distro": "debian"}, tags=["stable"], created=3600),
    ImageSpec(name="debian-12", properties={"os_distro": "debian"}, tags=["stable", "lts"]),
    ImageSpec(name="ubuntu-24.04", properties={"os_distro": "ubuntu"}),
)
KEYS: Final = (KeyPairSpec(name="ops"),)
FREE: Final = QuotaSpec(
    instances=UNLIMITED, cores=UNLIMITED, ram_mb=UNLIMITED, server_group_members=UNLIMITED
)


class WorldInvalid(ValueError):
    """A world is not what it should be. The text says where and why, for people."""


def tiny() -> WorldSpec:
    """Two zones with one rack each, two hypervisors, hardly any waiting: for tests."""
    return WorldSpec(
        hosts=(
            HostSpec(zone="az1", rack="r1", name="host{n}", vcpus=16, ram_mb=65_536),
            HostSpec(zone="az2", rack="r2", name="host-b{n}", vcpus=16, ram_mb=65_536),
        ),
        flavors=FLAVORS,
        images=IMAGES,
        key_pairs=KEYS,
        timings=Timings(
            post=(0.0, 0.0),
            schedule=(0.0, 0.0),
            claim=(0.0, 0.0),
            build=(0.05, 0.05),
            failed_spawn=(0.01, 0.01),
            action=(0.05, 0.05),
            migrate=(0.05, 0.05),
            delete=(0.05, 0.05),
        ),
    )


def demo() -> WorldSpec:
    """Four racks with two hypervisors each in two zones; builds take one to three seconds."""
    racks = (("az1", "r1"), ("az1", "r2"), ("az2", "r3"), ("az2", "r4"))
    return WorldSpec(
        hosts=tuple(HostSpec(zone=zone, rack=rack, count=2) for zone, rack in racks),
        flavors=FLAVORS,
        images=IMAGES,
        networks=(NetworkSpec(name="private"), NetworkSpec(name="storage")),
        key_pairs=KEYS,
        quota=QuotaSpec(instances=400, cores=4000, ram_mb=4_000_000),
    )


def big() -> WorldSpec:
    """500 hypervisors in 40 racks and four zones, no quota, guests on no address."""
    hosts = tuple(
        HostSpec(
            zone=f"az{1 + n % 4}",
            rack=f"r{n + 1:02}",
            count=13 if n < 20 else 12,  # noqa: PLR2004 - together 500
            vcpus=64,
            ram_mb=524_288,
        )
        for n in range(40)
    )
    base = demo()
    guests = base.guests.model_copy(update={"listen": False})
    return base.model_copy(update={"hosts": hosts, "quota": FREE, "guests": guests})


SCENARIOS: Final = {"tiny": tiny, "demo": demo, "big": big}


def load(name: str) -> WorldSpec:
    """A world by the name of a scenario, or by the path of a YAML file.

    Raises:
        WorldInvalid: there is no such thing, or it is no world.
    """
    if name in SCENARIOS:
        return SCENARIOS[name]()
    path = Path(name)
    if not path.suffix:
        raise WorldInvalid(
            f"there is no scenario {name!r}: choose {', '.join(SCENARIOS)}, or a file"
        )
    try:
        return parse(path.read_text(encoding="utf-8"), where=name)
    except OSError as error:
        raise WorldInvalid(f"{name}: {error.strerror}") from error


def parse(text: str, *, where: str = "world") -> WorldSpec:
    """A world from YAML.

    Raises:
        WorldInvalid: with every mistake that it has.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise WorldInvalid(f"{where}: {error}") from error
    try:
        return WorldSpec.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(step) for step in e['loc']) or 'the file'}: {e['msg']}"
            for e in error.errors()
        )
        raise WorldInvalid(f"{where}: {wrong}") from error
