"""racks.yaml into sources."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from warmpool.domain.errors import RackConfigInvalid
from warmpool.effects.racks import config
from warmpool.effects.racks.cms import CmsByHost, CmsList
from warmpool.effects.racks.config_map import ConfigMapSource
from warmpool.effects.racks.netbox import NetBoxSource, authorization
from warmpool.effects.racks.nova import aggregate_source, trait_source
from warmpool.effects.racks.pattern import PatternSource
from warmpool.effects.racks.web import Web, barred
from warmpool.ports.cloud import Cloud
from warmpool.ports.racks import Chain, RackSource, Surroundings

RACKS_YAML = "racks.yaml"
"""Key of the cloud's Secret, beside clouds.yaml."""


def open_racks(around: Surroundings, *, loopback: bool = False) -> Chain:
    """The chain of a cloud. Asks nobody yet.

    Args:
        around: what it is opened from.
        loopback: whether servers on this machine may be asked.

    Raises:
        RackConfigInvalid: racks.yaml cannot be used.
        CloudError: nor can the entry of clouds.yaml that it names.
    """
    text = around.secret.get(RACKS_YAML)
    said = config.read_racks_yaml(
        text.decode(errors="replace") if text is not None else None, around.cloud
    )
    names = list(_names(said.sources))
    webs = [_web_of(source, around.secret, loopback) for source in said.sources]
    inventory = around.project
    if said.inventory is not None and said.inventory != around.cloud:
        inventory = around.open_cloud(said.inventory)
    parts = zip(names, said.sources, webs, strict=True)
    sources = tuple(_open(name, one, web, around, inventory) for name, one, web in parts)
    return Chain(inventory, sources)


def _names(sources: list[config.Source]) -> Iterator[str]:
    """What messages call each: as told, or by its kind, numbered from the second on."""
    seen: Counter[str] = Counter()
    for source in sources:
        base = source.name or source.kinds[0]
        seen[base] += 1
        yield base if seen[base] == 1 else f"{base}-{seen[base]}"


def _open(
    name: str, source: config.Source, web: Web | None, around: Surroundings, inventory: Cloud
) -> RackSource:
    if source.aggregate is not None:
        return aggregate_source(name, inventory, source.aggregate.key)
    if source.trait is not None:
        return trait_source(name, inventory, source.trait.prefix)
    if source.host_name is not None:
        return PatternSource(name, source.host_name.pattern, source.host_name.rack)
    if source.config_map is not None:
        return ConfigMapSource(name, source.config_map.name, around.config_map)
    assert web is not None  # noqa: S101 - the others are asked over HTTP
    if source.netbox is not None:
        return NetBoxSource(name, source.netbox, web)
    assert source.http is not None  # noqa: S101 - there is no other kind
    return (CmsList if source.http.lists else CmsByHost)(name, source.http, web)


def _web_of(source: config.Source, secret: Mapping[str, bytes], loopback: bool) -> Web | None:
    if source.http is not None:
        return _web(source.http, secret, lambda token: f"Bearer {token}", loopback)
    if source.netbox is not None:
        return _web(source.netbox, secret, authorization, loopback)
    return None


def _web(
    said: config.Web, secret: Mapping[str, bytes], header: Callable[[str], str], loopback: bool
) -> Web:
    if why := barred(urlsplit(said.url).hostname or "", loopback=loopback):
        raise RackConfigInvalid(f"racks.yaml: {why} may not be asked")
    token = _from_secret(said.token_key, secret)
    headers = {} if token is None else {"Authorization": header(token)}
    try:
        return Web(
            headers=headers,
            timeout=max(config.lasts(said.timeout), 0.1),
            certificates=_from_secret(said.ca_key, secret),
            loopback=loopback,
        )
    except (ValueError, OSError):
        raise RackConfigInvalid(
            f"racks.yaml: key {said.ca_key!r} of the Secret holds no certificates"
        ) from None


def _from_secret(key: str | None, secret: Mapping[str, bytes]) -> str | None:
    if key is None:
        return None
    with suppress(KeyError, UnicodeDecodeError):
        text = secret[key].decode().strip()
        if text and "\n" not in text.partition("-----BEGIN")[0] and text.isascii():
            return text
    raise RackConfigInvalid(f"racks.yaml: the Secret has no key {key!r} with a value of one line")
