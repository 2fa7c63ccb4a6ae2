"""Everything that can be set, read from the environment once. Nobody else reads `os.environ`."""

from datetime import timedelta
from typing import Final, Literal, Self

from pydantic import AliasChoices, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from warmpool.reconcile.election import LONGEST

LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
"""A part of the name of an object, between dots."""


class Settings(BaseSettings):
    """Settings of `warmpool run`. Each is `WARMPOOL_` and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="WARMPOOL_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        populate_by_name=True,
    )

    kubeconfig: str | None = Field(
        default=None, validation_alias=AliasChoices("WARMPOOL_KUBECONFIG", "KUBECONFIG")
    )
    """Path of a kubeconfig. Unset: the pod's service account."""

    context: str | None = None
    """Context in the kubeconfig. Unset: its current one."""

    namespace: str = Field(default="warmpool-system", min_length=1, max_length=63)
    """The operator's own namespace: Lease and ledger live here."""

    identity: str | None = Field(default=None, max_length=200, pattern=rf"^{LABEL}(\.{LABEL})*$")
    """Name of this replica, unique among them: lower case letters, digits, dashes and dots. Unset:
    host name, process id and a random part."""

    lease_seconds: int = Field(default=10, ge=2, le=LONGEST)
    """A leader that has not renewed for so long is replaced. Whole seconds, as in the Lease."""

    lease_deadline_seconds: float = Field(default=7, ge=1, le=110)
    """A leader stops so long after its last good renewal. Below `lease_seconds`."""

    lease_retry_seconds: float = Field(default=2, ge=0.2, le=30)
    """Between renewals. Below `lease_deadline_seconds`."""

    replica_renew_seconds: float = Field(default=30, ge=1, le=600)
    """Between renewals of the Lease by which this replica is listed."""

    probe_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of `/livez` and `/readyz`. Unset: none is opened. 0: one that is free; the log tells."""

    probe_address: str = "127.0.0.1"
    """Address that they are bound to. Whoever reaches it may ask: there is nothing secret."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much is logged."""

    log_format: Literal["text", "json"] = "text"
    """Text for people, JSON for machines."""

    @model_validator(mode="after")
    def _lease_in_order(self) -> Self:
        if not self.lease_retry_seconds < self.lease_deadline_seconds < self.lease_seconds:
            raise ValueError(
                "WARMPOOL_LEASE_RETRY_SECONDS < WARMPOOL_LEASE_DEADLINE_SECONDS <"
                f" WARMPOOL_LEASE_SECONDS must hold, but they are {self.lease_retry_seconds:g},"
                f" {self.lease_deadline_seconds:g} and {self.lease_seconds:g}"
            )
        return self

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @property
    def replica_renewal(self) -> timedelta:
        return timedelta(seconds=self.replica_renew_seconds)

    @property
    def lease_deadline(self) -> timedelta:
        return timedelta(seconds=self.lease_deadline_seconds)

    @property
    def lease_retry(self) -> timedelta:
        return timedelta(seconds=self.lease_retry_seconds)
