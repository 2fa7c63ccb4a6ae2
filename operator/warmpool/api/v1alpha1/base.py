"""What every kind shares: the base model, metadata, conditions, durations."""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

DURATION_PATTERN: Final = r"^([0-9]+(h|m|s))+$"
_DURATION_PART: Final = re.compile(r"([0-9]+)([hms])")
_SECONDS: Final = {"h": 3600, "m": 60, "s": 1}

Duration = Annotated[str, StringConstraints(pattern=DURATION_PATTERN, max_length=20)]
"""A span of time as Kubernetes users write it: `90s`, `15m`, `1h30m`. Not a timedelta, since
pydantic would describe that as ISO 8601."""


@lru_cache(maxsize=1024)
def seconds(duration: str) -> timedelta:
    """The span that a `Duration` means. Few texts are in use, and each claim asks for several.

    Raises:
        ValueError: the text is no duration.
    """
    if re.fullmatch(DURATION_PATTERN, duration) is None:
        raise ValueError(f"{duration!r} is no duration: write it like 90s, 15m or 1h30m")
    parts = _DURATION_PART.findall(duration)
    return timedelta(seconds=sum(int(n) * _SECONDS[unit] for n, unit in parts))


SHARE_PATTERN: Final = r"^(100|[0-9]{1,2})%$"

Share = (
    Annotated[int, Field(ge=0, le=20000)]
    | Annotated[str, StringConstraints(pattern=SHARE_PATTERN, max_length=4)]
)
"""A number of things, or a share of those there are: `5`, `20%`."""


def portion(share: Share, whole: int) -> int:
    """How many of `whole` a share is; part of one counts as one.

    Raises:
        ValueError: the text is no share.
    """
    if isinstance(share, int):
        return share
    if re.fullmatch(SHARE_PATTERN, share) is None:
        raise ValueError(f"{share!r} is no share: write it like 5 or 20%")
    return -(-whole * int(share[:-1]) // 100)


Time = datetime
"""A moment, always with its zone. In the CRD a string of format date-time."""


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with seconds, as Kubernetes writes metav1.Time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with exactly six digits of fraction: the API server's MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Model(BaseModel):
    """Base of all models: camelCase outside, frozen, tolerant of fields it does not know.

    Tolerant, because an operator must survive a CRD newer than itself.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )


NovaName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
"""A name or id of OpenStack's."""

ServerMetadata = dict[str, Annotated[str, StringConstraints(max_length=255)]]
"""Metadata of a server. Bounded by the field that has it."""


class DomainName(StrEnum):
    """A level at which VMs are kept apart."""

    ZONE = "zone"
    RACK = "rack"
    HYPERVISOR = "hypervisor"


class ConditionStatus(StrEnum):
    """True, False, or not known."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """A metav1.Condition."""

    type: str = Field(max_length=63)
    """What the condition is about."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: str = Field(max_length=63)
    """Why, as one word from a closed set."""
    message: str = Field(max_length=1024)
    """Why, for people, with the numbers."""
    last_transition_time: Time
    """When `status` last changed."""
    observed_generation: int = Field(default=0, ge=0)
    """The `metadata.generation` that this was computed from."""


class Metadata(Model):
    """The part of ObjectMeta that we read."""

    namespace: str = ""
    name: str
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
