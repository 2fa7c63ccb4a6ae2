"""What a simulated cloud is made of, as it may be written in a YAML file."""

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

Name = Annotated[str, Field(min_length=1, max_length=255)]

UNLIMITED: Final = -1
"""Nova's own way to say that a quota has no bound."""


class Spec(BaseModel):
    """Base of the models of this module: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _as_pair(value: Any) -> Any:
    """Read `2`, `"1..3"` and `[1, 3]` alike."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (value, value)
    if isinstance(value, str):
        low, _, high = value.partition("..")
        return (low, high or low)
    return value


def _ordered(value: Any) -> Any:
    low, high = value = _as_pair(value)
    if float(low) > float(high):
        raise ValueError(f"the range ends before it begins: {low}..{high}")
    return value


Seconds = Annotated[
    tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]],
    BeforeValidator(_ordered),
    PlainSerializer(list),
]
"""Seconds, fixed or from a range: `2`, `"1..3"` or `[1, 3]`."""


class HostSpec(Spec):
    """Hypervisors that are alike."""

    zone: Name
    rack: Name
    count: int = Field(default=1, ge=1, le=10_000)
    name: Name = "{rack}-h{n}"
    """Pattern of their names. `{n}` counts from 1 within this entry, `{rack}` and `{zone}` as
    above."""
    vcpus: int = Field(default=32, ge=1)
    cpu_ratio: float = Field(default=4.0, gt=0)
    """Virtual processors sold per real one."""
    ram_mb: int = Field(default=262_144, ge=1)
    reserved_ram_mb: int = Field(default=512, ge=0)
    disk_gb: int = Field(default=10_000, ge=0)


class FlavorSpec(Spec):
    """A flavor."""

    name: Name
    vcpus: int = Field(default=1, ge=1)
    ram_mb: int = Field(default=512, ge=1)
    disk_gb: int = Field(default=1, ge=0)
    id: str | None = None
    """Unset: a UUID that depends on the name alone."""
    extra_specs: dict[str, str] = Field(default_factory=dict)


class ImageSpec(Spec):
    """An image."""

    name: Name
    id: str | None = None
    """Unset: a UUID that depends on the name alone."""
    min_disk: int = Field(default=0, ge=0)
    min_ram: int = Field(default=0, ge=0)
    properties: dict[str, str] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    created: int = 0
    """Seconds after the simulator's start, to tell which is newer."""


class NetworkSpec(Spec):
    """A network."""

    name: Name
    id: str | None = None
    """Unset: a UUID that depends on the name alone."""


class KeyPairSpec(Spec):
    """A key pair of every user."""

    name: Name
    public_key: str = (
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA sim"
    )


class QuotaSpec(Spec):
    """What a project may have. -1: without bound."""

    instances: int = Field(default=10, ge=UNLIMITED)
    cores: int = Field(default=20, ge=UNLIMITED)
    ram_mb: int = Field(default=51_200, ge=UNLIMITED)
    server_groups: int = Field(default=10, ge=UNLIMITED)
    server_group_members: int = Field(default=10, ge=UNLIMITED)


class Timings(Spec):
    """How long things take."""

    post: Seconds = (0.01, 0.01)
    """From the quota check of a POST until its servers are there: how long two POSTs can race."""
    schedule: Seconds = (0.05, 0.05)
    """From the POST until the scheduler decides."""
    claim: Seconds = (0.02, 0.02)
    """From the decision until the hypervisor has the server: how long group members can race."""
    build: Seconds = (1.0, 3.0)
    """From there until ACTIVE."""
    failed_spawn: Seconds = (0.1, 0.1)
    """From there until a spawn that fails has failed."""
    boot: Seconds = (0.0, 0.0)
    """From ACTIVE until the guest answers."""
    action: Seconds = (0.4, 0.4)
    """Stop, start, reboot, rebuild and the like."""
    migrate: Seconds = (0.5, 0.9)
    """Live migration and evacuation."""
    delete: Seconds = (0.3, 0.3)
    builds_per_host: int | None = Field(default=None, ge=1)
    """Builds that one hypervisor carries out at a time. Unset: without bound."""
    builds_at_once: int | None = Field(default=None, ge=1)
    """Builds that the whole cloud carries out at a time. Unset: without bound."""
    service_down_time: float = Field(default=60.0, gt=0)
    """Seconds of silence after which a compute service reads down."""
    rpc_timeout: float = Field(default=60.0, ge=0)
    """Seconds that a call waits which asks a compute service that is dead."""
    token: float = Field(default=86_400.0, gt=0)
    """Seconds that a token is good."""
    clock_behind: float = Field(default=0.0, ge=0)
    """Seconds by which the clocks of conductors and hypervisors are behind the API's: what they
    change is dated so."""


class GuestSpec(Spec):
    """Guests on addresses of the loopback network."""

    listen: bool = True
    """Answer TCP on the address of every guest that is up."""
    network: str = "127.64.0.0/10"
    """Where the addresses come from."""
    port: int = Field(default=2222, ge=0, le=65_535)
    """Port that guests answer on. 0: one is chosen that is free."""


class WorldSpec(Spec):
    """A whole cloud."""

    region: Name = "RegionOne"
    project: Name = "demo"
    """The project that the credentials of the written clouds.yaml are scoped to."""
    hosts: tuple[HostSpec, ...] = Field(min_length=1)
    flavors: tuple[FlavorSpec, ...] = Field(min_length=1)
    images: tuple[ImageSpec, ...] = Field(min_length=1)
    networks: tuple[NetworkSpec, ...] = (NetworkSpec(name="private"),)
    security_groups: tuple[Name, ...] = ("default",)
    key_pairs: tuple[KeyPairSpec, ...] = ()
    quota: QuotaSpec = QuotaSpec()
    timings: Timings = Timings()
    guests: GuestSpec = GuestSpec()
    max_limit: int = Field(default=1000, ge=1)
    """Servers on one page at most."""
    max_attempts: int = Field(default=3, ge=1)
    """Hypervisors that one build is tried on."""
