"""Everything that can be set, read from the environment once. Nobody else reads `os.environ`."""

from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, model_validator
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
        hide_input_in_errors=True,
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

    history_dir: Path | None = None
    """Directory of history and its spool. Unset: both are in memory, and end with the process."""

    history_days: int = Field(default=90, ge=1, le=3650)
    """Records that are older are forgotten."""

    history_megabytes: int = Field(default=512, ge=8, le=1_000_000)
    """Size of the file that history is kept in: the oldest records go first."""

    spool_megabytes: int = Field(default=256, ge=1, le=1_000_000)
    """Records that wait for where history is kept: the oldest are dropped, loudly."""

    elasticsearch_url: str | None = None
    """Where history is kept instead of in a file. Several addresses with commas. No password."""

    elasticsearch_api_key: SecretStr | None = None
    """How to log in there: this,"""

    elasticsearch_user: str | None = None
    """or a user"""

    elasticsearch_password: SecretStr | None = None
    """and a password."""

    elasticsearch_ca_file: str | None = None
    """Certificates that are trusted there. Unset: the system's."""

    elasticsearch_stream: str = Field(
        default="warmpool-history", max_length=100, pattern=r"^[a-z0-9][a-z0-9._-]*$"
    )
    """Name of the data stream, and of its index template."""

    notices_secret: str | None = Field(
        default=None, max_length=253, pattern=rf"^{LABEL}(\.{LABEL})*$"
    )
    """Name of the Secret in the operator's own namespace that says who is told what, by mail and
    the rest. Unset: nobody is told anything."""

    traces_url: str | None = Field(default=None, pattern=r"^https?://[^@\s]+$")
    """Where traces of claims and builds go: a collector's OTLP over HTTP, as
    `http://collector:4318/v1/traces`. Unset: none are made. Needs `warmpool[traces]`."""

    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of `/metrics`. Unset: none is opened. 0: one that is free; the log tells."""

    metrics_address: str = "127.0.0.1"
    """Address that it is bound to. Beyond loopback, who asks needs the right to get `/metrics`."""

    page_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of the web page. Unset: none is opened. 0: one that is free; the log tells."""

    page_address: str = "127.0.0.1"
    """Address that it is bound to. Beyond loopback, who asks needs the right to list all pools,
    claims and VMs."""

    catalogue: Literal["vmflavors", "mongodb"] = "vmflavors"
    """Where the catalogue's entries are that are in force."""

    mongodb_uri: SecretStr | None = Field(default=None, min_length=1)
    """Where MongoDB is, and how to log in: `mongodb://` or `mongodb+srv://`. To read is enough."""

    mongodb_database: str = Field(default="warmpool", max_length=63, pattern=r"^[A-Za-z0-9_-]+$")
    """Database of the catalogue."""

    mongodb_collection: str = Field(
        default="catalogue", max_length=100, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
    )
    """Collection of the catalogue."""

    racks_loopback: bool = False
    """Whether a racks.yaml may name servers on the operator's own machine, such as a sidecar."""

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

    @model_validator(mode="after")
    def _elasticsearch_whole(self) -> Self:
        user, password = self.elasticsearch_user, self.elasticsearch_password
        name = "WARMPOOL_ELASTICSEARCH"
        for url in self.elasticsearch_urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{name}_URL: addresses begin with http:// or https://")
            if parts.username is not None:
                raise ValueError(f"{name}_URL: user and password have settings of their own")
        if (user is None) != (password is None):
            raise ValueError(f"{name}_USER and {name}_PASSWORD go together")
        login = self.elasticsearch_api_key is not None or user is not None
        if login and self.elasticsearch_url is None:
            raise ValueError(f"there is a login, but no {name}_URL")
        if self.elasticsearch_api_key is not None and user is not None:
            raise ValueError(f"{name}_API_KEY or {name}_USER, not both")
        return self

    @model_validator(mode="after")
    def _catalogue_whole(self) -> Self:
        if self.catalogue == "mongodb" and self.mongodb_uri is None:
            raise ValueError("WARMPOOL_CATALOGUE=mongodb needs WARMPOOL_MONGODB_URI")
        return self

    @property
    def elasticsearch_urls(self) -> tuple[str, ...]:
        return tuple(
            url.strip() for url in (self.elasticsearch_url or "").split(",") if url.strip()
        )

    @property
    def history_age(self) -> timedelta:
        return timedelta(days=self.history_days)

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
