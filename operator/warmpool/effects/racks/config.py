"""racks.yaml: which sources a cloud's racks come from, in which order."""

from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from warmpool.api.v1alpha1.base import Duration, seconds
from warmpool.domain.errors import RackConfigInvalid
from warmpool.effects.plain_yaml import NotPlainYamlError, parse
from warmpool.effects.racks.jsonpath import compiled
from warmpool.effects.racks.names import HOST_FIELDS, checked_template
from warmpool.effects.racks.pattern import compiled_pattern

MAX_SOURCES: Final = 10

JsonPath = Annotated[str, AfterValidator(compiled), Field(max_length=500)]
"""A query as RFC 9535 has it, without `match` and `search`."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]
SecretKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
WebUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=2000)]
"""Without a user and a password: those go into the Secret."""


def _host_template(text: str) -> str:
    return checked_template(text, HOST_FIELDS)


HostTemplate = Annotated[Text, AfterValidator(_host_template)]


class Part(BaseModel):
    """Strict: a word that means nothing is a mistake that somebody has to hear of."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


class Aggregate(Part):
    """Metadata of Nova's host aggregates."""

    key: Text = "rack"
    """The item that names the rack."""


class Trait(Part):
    """A trait of the hypervisor's resource provider, such as `CUSTOM_RACK_R07`."""

    prefix: str = Field(default="CUSTOM_RACK_", pattern=r"^CUSTOM_[A-Z0-9_]+$", max_length=100)
    """What comes before the name of the rack."""


class HostName(Part):
    """The host's own name."""

    pattern: Text
    """Regular expression (RE2) that the whole name must match, with a group for each part that
    `rack` uses."""
    rack: Text = "{rack}"
    """The rack, made of the groups."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        groups = compiled_pattern(self.pattern).groupindex
        checked_template(self.rack, tuple(groups))
        return self


class ConfigMap(Part):
    """A ConfigMap in the namespace of the Secret."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)
    """Its name. Each key of its data is a host, each value a rack; the key `racks.yaml` holds many
    at once, as a mapping."""


class Web(Part):
    """What every source has that is asked over HTTP."""

    url: WebUrl
    """Where."""
    token_key: SecretKey | None = None
    """Key of the cloud's Secret that holds the token."""
    ca_key: SecretKey | None = None
    """Key of the cloud's Secret that holds the certificates to trust, as PEM. Unset: the system's
    own."""
    timeout: Duration = "10s"
    """For one request."""
    refresh: Duration = "10m"
    """For so long an answer is good enough."""


class Http(Web):
    """A CMS that answers with JSON.

    With `{host}` or `{short}` in the URL it is asked about one host at a time, else for a list.
    """

    rack: JsonPath
    """The rack: in the answer about a host, or in one item of the list."""
    items: JsonPath | None = None
    """The items of a list."""
    host: JsonPath | None = None
    """The host's name in one item of a list."""
    next: JsonPath | None = None
    """The URL of the next page, or with `nextParameter` its token; the last page has none."""
    next_parameter: Text | None = None
    """Name of the query parameter that takes the token of the next page."""

    @property
    def lists(self) -> bool:
        """Whether it is asked for all hosts at once."""
        return "{" not in self.url

    @model_validator(mode="after")
    def _whole(self) -> Self:
        checked_template(self.url, HOST_FIELDS)
        if "{" in urlsplit(self.url).netloc:
            raise ValueError("which server is asked is not for the name of a host to say")
        if self.lists and (self.items is None or self.host is None):
            raise ValueError(
                "a URL without {host} is asked for a list: 'items' and 'host' say how to read it"
            )
        if not self.lists and any((self.items, self.host, self.next, self.next_parameter)):
            raise ValueError("'items', 'host' and 'next' are for a URL without {host}")
        if self.next_parameter is not None and self.next is None:
            raise ValueError("'nextParameter' needs 'next'")
        return self


class NetBox(Web):
    """NetBox: the rack of the device that bears the host's name."""

    device: HostTemplate = "{host}"
    """Name of the device: `{host}` as Nova has it, `{short}` up to the first dot."""
    site: Text | None = None
    """Slug of the site that devices are looked for in. Unset: in all."""
    rack: Annotated[
        Text, AfterValidator(lambda text: checked_template(text, ("rack", "site", "location")))
    ] = "{rack}"
    """The rack, made of NetBox's names. `{site}/{rack}` keeps racks of several sites apart."""


class Source(Part):
    """One source: one of its kinds, and a name for people."""

    name: str | None = Field(default=None, min_length=1, max_length=63)
    """How messages call it. Unset: its kind."""
    aggregate: Aggregate | None = None
    trait: Trait | None = None
    host_name: HostName | None = None
    config_map: ConfigMap | None = None
    http: Http | None = None
    netbox: NetBox | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.kinds) != 1:
            raise ValueError(f"a source is one of {', '.join(KINDS)}: this has {len(self.kinds)}")
        return self

    @property
    def kinds(self) -> list[str]:
        """What it is: one word, once it was checked."""
        values = {to_camel(field): getattr(self, field) for field in _KIND_FIELDS}
        return [kind for kind, value in values.items() if value is not None]


_KIND_FIELDS: Final = ("aggregate", "trait", "host_name", "config_map", "http", "netbox")
KINDS: Final = tuple(map(to_camel, _KIND_FIELDS))


class CloudRacks(Part):
    """The racks of one cloud."""

    inventory: str | None = Field(default=None, min_length=1, max_length=253)
    """Entry of clouds.yaml whose credentials may see hosts. Unset: those that build."""
    sources: list[Source] = Field(
        default_factory=lambda: [Source(aggregate=Aggregate())],
        min_length=1,
        max_length=MAX_SOURCES,
    )
    """The weightiest first: a rack is what the first of them says that names one."""


class RacksFile(Part):
    """racks.yaml."""

    clouds: dict[str, CloudRacks]
    """Name of the cloud in clouds.yaml to its racks."""


def read_racks_yaml(text: str | None, cloud: str) -> CloudRacks:
    """What racks.yaml says of a cloud; without it, or if it says nothing, the aggregates' `rack`.

    Raises:
        RackConfigInvalid: with the place in the file.
    """
    if text is None:
        return CloudRacks()
    try:
        said = RacksFile.model_validate(parse(text))
    except NotPlainYamlError as error:
        raise RackConfigInvalid(f"racks.yaml {error}") from None
    except ValidationError as error:
        raise RackConfigInvalid(f"racks.yaml: {_first(error)}") from None
    return said.clouds.get(cloud, CloudRacks())


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, without the value: it may be a secret in the wrong place."""
    one = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, one["loc"]))
    return f"{where}: {one['msg'].removeprefix('Value error, ')}"[:500]


def lasts(duration: str) -> float:
    """Seconds of a duration."""
    return seconds(duration).total_seconds()
