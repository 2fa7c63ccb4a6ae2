"""What every `ports.racks.RackSource` owes its callers, held against each kind.

Each ground keeps the same racks in its own way: h1 and h2 stand in r1, h3 in r2, of h4 there is no
rack, and of "h9" nobody has heard.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import yaml

from doubles.websites import TOKEN, Cms, NetBox, Site
from warmpool.domain.cloud import Topology
from warmpool.domain.errors import CloudUnavailable, NotFound, RackConfigInvalid, RackSourceFailed
from warmpool.domain.racks import Host
from warmpool.effects import plain_yaml
from warmpool.effects.racks.opening import open_racks
from warmpool.effects.racks.web import Web
from warmpool.ports.racks import RackSource, Surroundings

RACKS: dict[str, str | None] = {"h1": "r1", "h2": "r1", "h3": "r2", "h4": None}
HOSTS = tuple(Host(name, f"{name}.dc.example") for name in ("h1", "h2", "h3", "h4"))
STRANGER = Host("h9", "h9.dc.example")


class FakeNova:
    """As much of `ports.cloud.Cloud` as sources ask."""

    def __init__(self, racks: dict[str, Any]) -> None:
        self.racks = racks
        self.broken = False
        self.visible = True

    async def topology(self, key: str = "rack") -> Topology:
        assert key == "rack"
        return self._answer({name: rack for name, rack in self.racks.items() if rack})

    async def traits(self, prefix: str) -> Topology:
        assert prefix == "CUSTOM_RACK_"
        racks = self.racks.items()
        return self._answer({f"{name}.dc.example": rack for name, rack in racks if rack})

    def _answer(self, racks: dict[str, str]) -> Topology:
        if self.broken:
            raise CloudUnavailable("Nova answered 500")
        if not self.visible:
            return Topology(visible=False, why_not="Policy doesn't allow it")
        return Topology(racks)


class Ground:
    """One kind of place, and what is in it."""

    def __init__(self, source: dict[str, Any], nova: FakeNova, secret: dict[str, bytes]) -> None:
        self.nova = nova
        self.config_maps: dict[str, dict[str, str]] = {}
        self.source = self.open(source, secret)

    def open(self, source: dict[str, Any], secret: dict[str, bytes]) -> RackSource:
        text = yaml.safe_dump({"clouds": {"lab": {"sources": [source]}}})
        around = Surroundings(
            cloud="lab",
            secret={"racks.yaml": text.encode(), **secret},
            project=self.nova,  # type: ignore[arg-type]
            open_cloud=lambda _: self.nova,  # type: ignore[arg-type,return-value]
            config_map=self._config_map,
        )
        [one] = open_racks(around, loopback=True).sources
        return one

    async def _config_map(self, name: str) -> dict[str, str]:
        await asyncio.sleep(0)
        if name not in self.config_maps:
            raise NotFound(f"404: configmap {name}")
        return self.config_maps[name]

    def put(self, racks: dict[str, Any]) -> None:
        """Keep these racks from now on."""
        self.nova.racks = racks

    def break_it(self) -> None:
        """Let nobody be told anything."""
        self.nova.broken = True


class OfConfigMap(Ground):
    def __init__(self, nova: FakeNova) -> None:
        super().__init__({"configMap": {"name": "racks"}}, nova, {})
        self.put(nova.racks)

    def put(self, racks: dict[str, Any]) -> None:
        self.config_maps["racks"] = {"racks.yaml": yaml.safe_dump(racks)}

    def break_it(self) -> None:
        del self.config_maps["racks"]


class OfSite(Ground):
    def __init__(self, source: dict[str, Any], site: Site) -> None:
        super().__init__(source, FakeNova({}), {"token": TOKEN.encode()})
        self.site = site

    def put(self, racks: dict[str, Any]) -> None:
        self.site.racks = racks

    def break_it(self) -> None:
        self.site.trouble = "500"


def at(site: Site, path: str, **fields: Any) -> dict[str, Any]:
    return {"url": site.url + path, "tokenKey": "token", "timeout": "1s"} | fields


LISTED = {"items": "$.machines[*]", "host": "$.name", "rack": "$.location.rack"}


@asynccontextmanager
async def ground_of(kind: str) -> AsyncIterator[Ground]:
    if kind in ("aggregate", "trait"):
        yield Ground({kind: {}}, FakeNova(dict(RACKS)), {})
    elif kind == "configMap":
        yield OfConfigMap(FakeNova(dict(RACKS)))
    elif kind == "netbox":
        async with NetBox(dict(RACKS)).running() as site:
            yield OfSite({"netbox": at(site, "")}, site)
    else:
        async with Cms(dict(RACKS)).running() as site:
            yield OfSite({"http": cms_config(kind, site)}, site)


def cms_config(kind: str, site: Site) -> dict[str, Any]:
    match kind:
        case "cms-by-host":
            return at(site, "/machines/{host}", rack="$.location.rack.name")
        case "cms-by-page":
            return at(site, "/machines", next="$.next", **LISTED)
        case _:
            return at(site, "/machines", next="$.cursor", nextParameter="from", **LISTED)


WEB = ("cms-by-host", "cms-by-page", "cms-by-cursor", "netbox")


@pytest.fixture(params=["aggregate", "trait", "configMap", *WEB])
async def ground(request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    async with ground_of(request.param) as made:
        yield made
        await made.source.close()


@pytest.fixture(params=WEB)
async def on_the_web(request: pytest.FixtureRequest) -> AsyncIterator[OfSite]:
    async with ground_of(request.param) as made:
        assert isinstance(made, OfSite)
        yield made
        await made.source.close()


# -- what all of them owe ---------------------------------------------------------------------


async def test_it_tells_racks_and_that_it_knows_of_none(ground: Ground) -> None:
    told = await ground.source.ask((*HOSTS, STRANGER))
    assert told.racks == {"h1": "r1", "h2": "r1", "h3": "r2", "h4": "", "h9": ""}


async def test_it_names_only_hosts_that_it_was_asked_about(ground: Ground) -> None:
    told = await ground.source.ask(HOSTS[:1])
    assert told.racks == {"h1": "r1"}


async def test_a_rack_that_changes_is_told_when_asked_again(ground: Ground) -> None:
    await ground.source.ask(HOSTS)
    ground.put({**RACKS, "h1": "r9"})
    assert (await ground.source.ask(HOSTS)).racks["h1"] == "r9"


async def test_what_is_broken_tells_nothing_instead_of_something_else(ground: Ground) -> None:
    ground.break_it()
    with pytest.raises(RackSourceFailed) as failed:
        await ground.source.ask(HOSTS)
    assert str(failed.value)
    assert TOKEN not in str(failed.value)


async def test_it_answers_again_when_it_is_mended(ground: Ground) -> None:
    racks = dict(RACKS)
    ground.break_it()
    with pytest.raises(RackSourceFailed):
        await ground.source.ask(HOSTS)
    ground.nova.broken = False
    if isinstance(ground, OfSite):
        ground.site.trouble = ""
    ground.put(racks)
    assert (await ground.source.ask(HOSTS)).racks["h3"] == "r2"


@pytest.mark.parametrize("rack", ["x" * 300, "a\nb", ["r1"], {"name": {"a": 1}}, True])
async def test_what_cannot_be_the_name_of_a_rack_is_none(ground: Ground, rack: Any) -> None:
    """Whatever else it tells stays, and the rack is not made up."""
    ground.put({**RACKS, "h1": rack})
    told = await ground.source.ask(HOSTS)
    assert told.racks["h3"] == "r2"
    assert not told.racks.get("h1")
    assert "h1" in told.racks or told.why


# -- what those on the web owe ----------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["500", "html", "garbage", "huge", "redirect"])
async def test_a_site_that_talks_nonsense_has_told_nothing(
    on_the_web: OfSite, trouble: str
) -> None:
    on_the_web.site.trouble = trouble
    with pytest.raises(RackSourceFailed) as failed:
        await on_the_web.source.ask(HOSTS)
    assert TOKEN not in str(failed.value)


async def test_a_slow_site_is_given_up_in_its_time(on_the_web: OfSite) -> None:
    on_the_web.site.trouble = "slow"
    with pytest.raises(RackSourceFailed, match="no answer within 1 s"):
        await on_the_web.source.ask(HOSTS[:1])


async def test_a_token_that_is_refused_is_told_as_such(on_the_web: OfSite) -> None:
    on_the_web.site.authorization = "Bearer other"
    with pytest.raises(RackSourceFailed, match="403: the token is refused"):
        await on_the_web.source.ask(HOSTS)


async def test_a_site_that_is_not_there_tells_nothing(on_the_web: OfSite) -> None:
    async with ground_of("netbox") as gone:
        assert isinstance(gone, OfSite)
        url = gone.site.url
    source = on_the_web.open({"netbox": {"url": url, "tokenKey": "token"}}, {"token": b"x"})
    with pytest.raises(RackSourceFailed, match="no connection"):
        await source.ask(HOSTS)
    await source.close()


# -- what is particular -----------------------------------------------------------------------


async def test_a_host_name_tells_its_rack_by_its_parts() -> None:
    pattern = {"pattern": r"(?P<dc>\w+)-r(?P<row>\d+)-.*", "rack": "{dc}/{row}"}
    source = Ground({"hostName": pattern}, FakeNova({}), {}).source
    told = await source.ask((Host("muc-r07-h1"), Host("other")))
    assert told.racks == {"muc-r07-h1": "muc/07", "other": ""}


async def test_keys_of_a_config_map_are_hosts_too() -> None:
    ground = OfConfigMap(FakeNova({}))
    ground.config_maps["racks"] = {"h1": "r1", "racks.yaml": "h2: r2\nh3: 3\n"}
    told = await ground.source.ask(HOSTS)
    assert told.racks == {"h1": "r1", "h2": "r2", "h3": "3", "h4": ""}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- h1: [", "no YAML"),
        ("- h1", "no mapping of hosts to racks"),
        ("h1: r1\nh2: r2\nh1: r3\n", "has a key twice, at line 3: 'h1'"),
    ],
)
async def test_a_config_map_that_is_no_mapping_tells_nothing(text: str, says: str) -> None:
    ground = OfConfigMap(FakeNova({}))
    ground.config_maps["racks"] = {"racks.yaml": text}
    with pytest.raises(RackSourceFailed, match=says):
        await ground.source.ask(HOSTS)


async def test_a_config_map_is_parsed_beside_the_loop_and_when_it_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large one stopped everything for seconds, four times a minute."""
    parsed: list[str] = []

    def parse(text: str, limit: int) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        parsed.append(text)
        return plain_yaml.parse(text, limit)

    ground = OfConfigMap(FakeNova(dict(RACKS)))
    monkeypatch.setattr("warmpool.effects.racks.config_map.parse", parse)
    for _ in range(3):
        assert (await ground.source.ask(HOSTS)).racks["h1"] == "r1"
    ground.put({"h1": "r9"})
    for _ in range(3):
        assert (await ground.source.ask(HOSTS)).racks["h1"] == "r9"
    ground.config_maps["racks"] = {"racks.yaml": "- h1: ["}
    for _ in range(3):
        with pytest.raises(RackSourceFailed, match="no YAML"):
            await ground.source.ask(HOSTS)
    assert len(parsed) == 3
    del ground.config_maps["racks"]["racks.yaml"]
    assert (await ground.source.ask(HOSTS)).racks["h1"] == ""


async def test_a_config_map_that_would_take_too_long_to_read_tells_nothing() -> None:
    ground = OfConfigMap(FakeNova({}))
    ground.config_maps["racks"] = {"racks.yaml": "h1: r1\n" * 80_000}
    with pytest.raises(RackSourceFailed, match="longer than"):
        await ground.source.ask(HOSTS)
    bomb = ["a0: &a0 {h1: r1}"]
    bomb += [f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}" for n in range(9)]
    ground.config_maps["racks"] = {"racks.yaml": "\n".join(bomb)}
    with pytest.raises(RackSourceFailed, match="aliases written out"):
        await ground.source.ask(HOSTS)


async def test_hidden_aggregates_say_why() -> None:
    nova = FakeNova({})
    nova.visible = False
    with pytest.raises(RackSourceFailed, match="Policy doesn't allow"):
        await Ground({"aggregate": {}}, nova, {}).source.ask(HOSTS)


async def test_a_cms_may_fail_for_some_hosts_alone() -> None:
    async with ground_of("cms-by-host") as ground:
        ground.put({**RACKS, "h2": ["torn"]})
        told = await ground.source.ask(HOSTS)
        assert told.racks == {"h1": "r1", "h3": "r2", "h4": ""}
        assert "'h2'" in told.why
        await ground.source.close()


async def test_a_cms_that_answers_nobody_is_not_asked_about_all() -> None:
    async with ground_of("cms-by-host") as ground:
        assert isinstance(ground, OfSite)
        ground.break_it()
        with pytest.raises(RackSourceFailed):
            await ground.source.ask(tuple(Host(f"h{n}") for n in range(100)))
        assert len(ground.site.asked) == 8
        await ground.source.close()


async def test_names_of_hosts_are_quoted_into_urls() -> None:
    async with ground_of("cms-by-host") as ground:
        assert isinstance(ground, OfSite)
        await ground.source.ask((Host("a/../b?c"),))
        assert ground.site.asked == ["/machines/a%2F..%2Fb%3Fc"]
        await ground.source.close()


@pytest.mark.parametrize("kind", ["cms-by-host", "netbox"])
async def test_a_site_that_is_too_slow_for_all_hosts_tells_of_some(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was given up in the end, and what it had told was lost: the racks were never known."""
    monkeypatch.setattr("warmpool.effects.racks.web.ENOUGH", 0.0)
    async with ground_of(kind) as ground:
        ground.put({f"h{n}": "r1" for n in range(120)})
        told = await ground.source.ask(tuple(Host(f"h{n}") for n in range(120)))
        assert 8 <= len(told.racks) <= 50
        assert f"slow: it was asked about {len(told.racks)} of 120" in told.why
        await ground.source.close()


@pytest.mark.parametrize("kind", ["cms-by-page", "netbox"])
async def test_a_list_has_as_many_pages_as_it_likes(kind: str) -> None:
    async with ground_of(kind) as ground:
        assert isinstance(ground, OfSite)
        many = {f"h{n}": f"r{n}" for n in range(7)}
        ground.put(many)
        hosts = tuple(Host(name) for name in many)
        assert (await ground.source.ask(hosts)).racks == many
        assert len(ground.site.asked) == 4
        await ground.source.close()


async def test_no_token_goes_to_another_server_with_the_next_page() -> None:
    async with ground_of("cms-by-page") as ground:
        assert isinstance(ground, OfSite)
        ground.site.trouble = "astray"
        with pytest.raises(RackSourceFailed, match="another server"):
            await ground.source.ask(HOSTS)
        await ground.source.close()


async def test_a_list_may_name_hosts_short() -> None:
    async with ground_of("cms-by-page") as ground:
        told = await ground.source.ask((Host("h1.dc.example"),))
        assert told.racks == {"h1.dc.example": "r1"}
        await ground.source.close()


@pytest.mark.parametrize("page", [2, 100])
async def test_a_machine_that_a_list_has_twice_has_no_rack(page: int) -> None:
    """The last of them won, in silence: an old entry, or one of another site."""
    async with ground_of("cms-by-page") as ground:
        assert isinstance(ground, OfSite)
        assert isinstance(ground.site, Cms)
        ground.site.PAGE = page
        ground.site.twins = [("H1", "r9"), ("h3", "r2"), ("h1", "r9")]
        told = await ground.source.ask(HOSTS)
        assert told.racks == {"h2": "r1", "h3": "r2", "h4": ""}
        assert "several things" in told.why
        await ground.source.close()


def netbox_of(there: Site, **fields: Any) -> dict[str, Any]:
    return {"netbox": at(there, "") | fields}


async def netbox_tells(
    prepare: Callable[[NetBox], None], host: str = "h1", **fields: Any
) -> tuple[dict[str, str], str]:
    async with NetBox(dict(RACKS)).running() as netbox:
        assert isinstance(netbox, NetBox)
        prepare(netbox)
        source = OfSite(netbox_of(netbox, **fields), netbox).source
        told = await source.ask((Host(host), Host("h3")))
        await source.close()
        return dict(told.racks), told.why


async def test_netbox_tells_racks_of_several_sites_apart() -> None:
    def prepare(site: NetBox) -> None:
        site.site_of["h3"] = "dc2"

    racks, _ = await netbox_tells(prepare, rack="{site}/{rack}")
    assert racks == {"h1": "DC1/r1", "h3": "DC2/r2"}


async def test_netbox_is_asked_by_the_short_name() -> None:
    racks, _ = await netbox_tells(lambda _: None, "h1.dc.example", device="{short}")
    assert racks == {"h1.dc.example": "r1", "h3": "r2"}


async def test_a_device_that_netbox_has_twice_has_no_rack() -> None:
    """Names are unique within a site only: which of them is meant, the site decides."""

    def prepare(site: NetBox) -> None:
        site.site_of["h1"] = "dc2"
        site.twins = [site.device(99, "h1", "r9")]
        site.site_of["h1"] = "dc1"

    racks, why = await netbox_tells(prepare)
    assert racks == {"h3": "r2"}
    assert "'h1'" in why
    racks, _ = await netbox_tells(prepare, site="dc2")
    assert racks == {"h1": "r9", "h3": ""}


async def test_a_newer_token_of_netbox_is_sent_as_it_wants_it() -> None:
    async with NetBox(dict(RACKS)).running() as site:
        site.authorization = "Bearer nbt_key.secret"
        ground = OfSite(netbox_of(site), site)
        source = ground.open(netbox_of(site), {"token": b"nbt_key.secret\n"})
        assert (await source.ask(HOSTS)).racks["h1"] == "r1"
        await source.close()


LINK_LOCAL = ("169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]")
OWN = ("127.0.0.1", "127.8.8.8", "[::1]", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]")  # noqa: S104 - nobody binds


def opened(url: str) -> RackSource:
    """As the operator opens it without a word."""
    text = yaml.safe_dump({"clouds": {"lab": {"sources": [{"http": {"url": url, "rack": "$.a"}}]}}})
    nothing: Any = None
    secret = {"racks.yaml": text.encode()}
    [one] = open_racks(Surroundings("lab", secret, nothing, nothing, nothing)).sources
    return one


@pytest.mark.parametrize("address", LINK_LOCAL + OWN)
def test_what_is_told_to_the_operators_own_machine_alone_is_not_asked(address: str) -> None:
    with pytest.raises(RackConfigInvalid, match="may not be asked"):
        opened(f"http://{address}/{{host}}")


@pytest.mark.parametrize("address", LINK_LOCAL)
async def test_a_link_local_address_is_never_connected_to(address: str) -> None:
    """Names were checked when they were resolved, and addresses are not resolved."""
    web = Web(headers={}, timeout=5, certificates=None, loopback=True)
    with pytest.raises(RackSourceFailed, match="link-local address may not be asked"):
        await web.get(f"http://{address}/")
    await web.close()


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433"])
async def test_a_name_of_the_operators_own_machine_is_not_asked_either(host: str) -> None:
    async with Cms(dict(RACKS)).running() as site:
        source = opened(site.url.replace("127.0.0.1", host) + "/machines/{host}")
        with pytest.raises(RackSourceFailed, match="no connection"):
            await source.ask(HOSTS)
        await source.close()
        assert site.asked == []
