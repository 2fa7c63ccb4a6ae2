"""The adapter against a Nova whose every answer is written by the test: lost, cut, late, wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.pool import Network, Template
from warmpool.domain.cloud import (
    BuildSpec,
    FlavorSize,
    HostRoom,
    NetworkChoice,
    Quota,
    ServerRequest,
    ServerState,
    Usage,
)
from warmpool.domain.errors import (
    CapacityRefused,
    CloudError,
    CloudUnavailable,
    CredentialsRefused,
    DependencyMissing,
    OutcomeUnknown,
    RequestRejected,
)
from warmpool.domain.ids import InstallationId, ServerId, VmUid
from warmpool.effects.nova import Limits, NovaCloud, open_cloud

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OWNER = VmUid("7f3c0000-0000-0000-0000-000000000001")
TAGS = ["warmpool.dev:install=here", f"warmpool.dev:vm={OWNER}"]
SECRET = "c2VjcmV0LXNlY3JldA=="  # noqa: S105 - a made-up one
SPEC = BuildSpec("flavor-1", "image-1", NetworkChoice.NONE, user_data=SECRET)
REQUEST = ServerRequest("vm-1", OWNER, SPEC)
DETAIL = "/v2.1/servers/detail"
SERVERS = "/v2.1/servers"


class WrittenNova:
    """An HTTP server that answers what the test wrote, and remembers what it was asked."""

    def __init__(self) -> None:
        self.newest = "2.96"
        self.asked: list[web.Request] = []
        self.bodies: list[Any] = []
        self._answers: dict[tuple[str, str], list[Handler]] = {}
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self.server = TestServer(app)

    def on(self, method: str, path: str, *answers: Handler | dict[str, Any]) -> None:
        """Answer so, one after the other, and the last for ever."""
        self._answers[method, path] = [a if callable(a) else json(a) for a in answers]

    def count(self, method: str, path: str) -> int:
        return sum(1 for r in self.asked if (r.method, r.path) == (method, path))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.path.rstrip("/") == "/v2.1":
            return self._version(request)
        self.asked.append(request)
        self.bodies.append(await request.json() if request.can_read_body else None)
        answers = self._answers.get((request.method, request.path))
        if not answers:
            return await refuse(404, "no such thing")(request)
        return await (answers.pop(0) if len(answers) > 1 else answers[0])(request)

    def _version(self, request: web.Request) -> web.Response:
        links = [{"rel": "self", "href": str(request.url)}]
        version = {"id": "v2.1", "status": "CURRENT", "version": self.newest, "links": links}
        return web.json_response({"version": {**version, "min_version": "2.1"}})


def json(body: dict[str, Any], status: int = 200) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    return answer


def refuse(status: int, message: str) -> Handler:
    return json({"fault": {"code": status, "message": message}}, status)


def text(body: str, status: int = 200) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, status=status)

    return answer


async def reset(request: web.Request) -> web.StreamResponse:
    """Hang up on a request that was read."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def hang_until(event: asyncio.Event) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        await event.wait()
        return web.json_response({"server": {"id": "late"}}, status=202)

    return answer


def a_server(ident: str = "s-1", **over: Any) -> dict[str, Any]:
    return {"id": ident, "name": ident, "status": "ACTIVE", "tags": TAGS} | over


def a_page(*servers: dict[str, Any], marker: str | None = None) -> dict[str, Any]:
    link = {"rel": "next", "href": f"http://elsewhere.invalid/servers?marker={marker}"}
    return {"servers": list(servers)} | ({"servers_links": [link]} if marker else {})


@pytest.fixture
async def nova() -> AsyncIterator[WrittenNova]:
    written = WrittenNova()
    await written.server.start_server()
    yield written
    await written.server.close()


Open = Callable[..., NovaCloud]


@pytest.fixture
async def opened(nova: WrittenNova) -> AsyncIterator[Open]:
    """Opens the cloud with the limits that the test gives."""
    clouds = []

    def open_it(observe: Any = None, *, login: bool = False, **limits: Any) -> NovaCloud:
        entry: dict[str, Any] = {"auth_type": "none"}
        if login:
            auth = {"username": "lab", "password": "hunter2", "project_id": "p"}
            auth["user_domain_id"] = "default"
            url = str(nova.server.make_url("/v3"))
            entry = {"auth_type": "v3password", "auth": {**auth, "auth_url": url}}
        entry["region_name"] = "Here"
        paths = {"compute": "/v2.1", "image": "/glance", "network": "/neutron"}
        for service, path in (paths | {"placement": "/placement"}).items():
            entry[f"{service}_endpoint_override"] = str(nova.server.make_url(path))
        clouds.append(
            open_cloud(
                yaml.safe_dump({"clouds": {"written": entry}}),
                "written",
                installation=InstallationId("here"),
                limits=Limits(**{"silence_timeout": 2.0, **limits}),
                observe=observe,
            )
        )
        return clouds[-1]

    yield open_it
    for cloud in clouds:
        await cloud.close()


@pytest.fixture
def cloud(opened: Open) -> NovaCloud:
    return opened()


async def test_a_server_is_marked_in_the_very_request_that_builds_it(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    nova.on("POST", SERVERS, json({"server": {"id": "new"}}, 202))
    spec = BuildSpec(
        "f", "i", ("net-1", "net-2"), SECRET, ("default",), "key", (("a", "b"),), ("x",), True
    )

    assert await cloud.create(ServerRequest("vm-1", OWNER, spec, zone="az1")) == "new"

    assert nova.bodies[-1]["server"] == {
        "name": "vm-1",
        "flavorRef": "f",
        "imageRef": "i",
        "min_count": 1,
        "max_count": 1,
        "networks": [{"uuid": "net-1"}, {"uuid": "net-2"}],
        "tags": [*TAGS, "x"],
        "availability_zone": "az1",
        "config_drive": True,
        "key_name": "key",
        "metadata": {"a": "b"},
        "security_groups": [{"name": "default"}],
        "user_data": SECRET,
    }
    assert nova.asked[-1].headers["OpenStack-API-Version"] == "compute 2.52"


@pytest.mark.parametrize("choice", list(NetworkChoice))
async def test_no_named_network_is_told_as_a_word(
    nova: WrittenNova, cloud: NovaCloud, choice: NetworkChoice
) -> None:
    nova.on("POST", SERVERS, json({"server": {"id": "new"}}, 202))

    await cloud.create(ServerRequest("vm-1", OWNER, BuildSpec("f", "i", choice)))

    assert nova.bodies[-1]["server"]["networks"] == choice.value


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reset, id="connection reset"),
        pytest.param(refuse(500, "oops"), id="500"),
        pytest.param(text("<html>bad gateway</html>", 502), id="502 of a proxy"),
        pytest.param(refuse(503, "busy"), id="503"),
        pytest.param(text("", 202), id="accepted without a body"),
        pytest.param(json({"server": {}}, 202), id="accepted without an id"),
        pytest.param(json({"server": {"id": "../x"}}, 202), id="accepted with a bad id"),
    ],
)
async def test_a_create_whose_answer_is_lost_is_unknown_and_never_repeated(
    nova: WrittenNova, cloud: NovaCloud, answer: Handler
) -> None:
    nova.on("POST", SERVERS, answer)

    with pytest.raises(OutcomeUnknown) as caught:
        await cloud.create(REQUEST)

    assert nova.count("POST", SERVERS) == 1
    assert SECRET not in str(caught.value)


async def test_a_create_that_found_nobody_did_not_happen(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    nova.on("GET", DETAIL, a_page())
    await cloud.list(None)
    await nova.server.close()

    with pytest.raises(CloudUnavailable):
        await cloud.create(REQUEST)


async def test_a_create_that_takes_too_long_is_unknown(nova: WrittenNova, opened: Open) -> None:
    done = asyncio.Event()
    nova.on("POST", SERVERS, hang_until(done))

    with pytest.raises(OutcomeUnknown, match="no answer within"):
        await opened(call_timeout=0.2).create(REQUEST)

    done.set()


async def test_a_create_in_silence_is_unknown(nova: WrittenNova, opened: Open) -> None:
    done = asyncio.Event()
    nova.on("POST", SERVERS, hang_until(done))

    with pytest.raises(OutcomeUnknown):
        await opened(silence_timeout=0.2).create(REQUEST)

    done.set()


async def test_a_get_that_takes_too_long_did_not_happen(nova: WrittenNova, opened: Open) -> None:
    done = asyncio.Event()
    nova.on("GET", "/v2.1/servers/s-1", hang_until(done))

    with pytest.raises(CloudUnavailable, match="no answer within"):
        await opened(call_timeout=0.2).get(ServerId("s-1"))

    done.set()


async def test_a_create_that_waited_for_a_thread_in_vain_is_never_sent(
    nova: WrittenNova, opened: Open
) -> None:
    done = asyncio.Event()
    nova.on("GET", "/v2.1/servers/s-1", hang_until(done))
    cloud = opened(threads=1, call_timeout=0.3)

    async with asyncio.TaskGroup() as tasks:
        hung = tasks.create_task(error_of(cloud.get(ServerId("s-1"))))
        queued = tasks.create_task(error_of(cloud.create(REQUEST)))
    done.set()
    nova.on("GET", DETAIL, a_page())
    await cloud.list(None)

    assert isinstance(hung.result(), CloudUnavailable)
    assert isinstance(queued.result(), CloudUnavailable)
    assert nova.count("POST", SERVERS) == 0


async def error_of(call: Awaitable[object]) -> CloudError | None:
    try:
        await call
    except CloudError as error:
        return error
    return None


async def test_a_cancelled_create_that_was_not_sent_is_never_sent(
    nova: WrittenNova, opened: Open
) -> None:
    done = asyncio.Event()
    nova.on("GET", "/v2.1/servers/s-1", hang_until(done))
    cloud = opened(threads=1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(error_of(cloud.get(ServerId("s-1"))))
        queued = tasks.create_task(cloud.create(REQUEST))
        await asyncio.sleep(0.1)
        queued.cancel()
        await asyncio.wait([queued])
        done.set()

    assert queued.cancelled()
    assert nova.count("POST", SERVERS) == 0


async def test_a_redirect_is_not_followed_since_it_would_carry_the_token(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    async def elsewhere(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/v2.1/servers/other"})

    nova.on("GET", "/v2.1/servers/s-1", elsewhere)
    nova.on("GET", "/v2.1/servers/other", {"server": a_server("other")})

    with pytest.raises(CloudUnavailable, match="302"):
        await cloud.get(ServerId("s-1"))


@pytest.mark.parametrize("ident", ["", "..", "a/b", "x" * 65, "a?b", "détail"])
async def test_what_is_no_id_goes_into_no_path(
    nova: WrittenNova, cloud: NovaCloud, ident: str
) -> None:
    assert await cloud.get(ServerId(ident)) is None
    await cloud.delete(ServerId(ident))
    with pytest.raises(RequestRejected):
        await cloud.rebuild(ServerId(ident), "image-1")

    assert not nova.asked


async def test_a_rate_limit_of_a_delete_is_no_capacity(nova: WrittenNova, cloud: NovaCloud) -> None:
    nova.on("DELETE", "/v2.1/servers/s-1", refuse(429, "slow down"))

    with pytest.raises(CloudUnavailable) as caught:
        await cloud.delete(ServerId("s-1"))

    assert caught.value.reason is Reason.RATE_LIMITED


async def test_a_rate_limit_of_a_create_is_capacity(nova: WrittenNova, cloud: NovaCloud) -> None:
    nova.on("POST", SERVERS, refuse(429, "slow down"))

    with pytest.raises(CapacityRefused) as caught:
        await cloud.create(REQUEST)

    assert caught.value.reason is Reason.RATE_LIMITED


async def test_a_listing_is_put_together_from_its_pages(nova: WrittenNova, opened: Open) -> None:
    """A server that moved on to the next page while it was asked for counts once."""
    first = a_page(a_server("s-1"), a_server("s-2"), marker="s-2")
    second = a_page(a_server("s-2", status="SHUTOFF"), a_server("s-3"))
    nova.on("GET", DETAIL, first, second)

    listing = await opened(page_size=2).list(None)

    assert [s.id for s in listing.servers] == ["s-1", "s-2", "s-3"]
    assert listing.complete
    queries = [dict(r.query) for r in nova.asked]
    tags = "warmpool.dev:install=here"
    assert queries == [{"tags": tags, "limit": "2"}, {"tags": tags, "limit": "2", "marker": "s-2"}]


async def test_a_filter_that_nova_ignores_brings_no_strangers(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    theirs = a_server("theirs", tags=["warmpool.dev:install=there", TAGS[1]])
    ours = a_server("ours", tags=[TAGS[0], "warmpool.dev:vm=another"])
    nova.on("GET", DETAIL, a_page(a_server("s-1"), theirs, ours, a_server("none", tags=[])))

    assert {s.id for s in (await cloud.list(None)).servers} == {"s-1", "ours"}
    assert [s.id for s in await cloud.find(OWNER)] == ["s-1"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(refuse(500, "oops"), id="500"),
        pytest.param(refuse(400, "marker [s-1] not found"), id="marker gone"),
        pytest.param(refuse(404, "nothing here"), id="404"),
        pytest.param(json({"servers": [{"status": "ACTIVE", "tags": TAGS}]}), id="no server"),
        pytest.param(text('{"servers": [{"id": "s-2", '), id="cut short"),
        pytest.param(reset, id="connection reset"),
    ],
)
async def test_a_page_that_fails_fails_the_listing(
    nova: WrittenNova, cloud: NovaCloud, answer: Handler
) -> None:
    nova.on("GET", DETAIL, json(a_page(a_server("s-1"), marker="s-1")), answer)

    with pytest.raises(CloudUnavailable):
        await cloud.list(None)


async def test_pages_without_end_are_an_error(nova: WrittenNova, opened: Open) -> None:
    nova.on("GET", DETAIL, *(a_page(a_server(f"s-{n}"), marker=f"s-{n}") for n in range(9)))

    with pytest.raises(CloudUnavailable, match="do not end"):
        await opened(max_pages=4).list(None)

    assert nova.count("GET", DETAIL) == 4


async def test_a_page_that_leads_to_itself_is_an_error(nova: WrittenNova, cloud: NovaCloud) -> None:
    nova.on("GET", DETAIL, a_page(a_server("s-1"), marker="s-1"))

    with pytest.raises(CloudUnavailable, match="do not end"):
        await cloud.list(None)

    assert nova.count("GET", DETAIL) == 2


async def test_a_listing_with_a_cell_down_is_not_complete(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    nova.on("GET", DETAIL, a_page(a_server("s-1"), {"id": "s-2", "status": "UNKNOWN"}))
    nova.on("GET", "/v2.1/servers/s-2", {"server": {"id": "s-2", "status": "UNKNOWN"}})

    assert not (await cloud.list(None)).complete
    with pytest.raises(CloudUnavailable, match="cell"):
        await cloud.get(ServerId("s-2"))


async def test_the_deleted_are_named_if_they_were_met_before(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    """Nova has taken their tags away, so an incremental listing asks without the tag filter."""
    nova.on("POST", SERVERS, json({"server": {"id": "built"}}, 202))
    nova.on("GET", DETAIL, a_page(a_server("listed")))
    await cloud.list(None)
    await cloud.create(REQUEST)
    gone = [a_server(i, status="DELETED", tags=[]) for i in ("built", "listed", "strangers")]
    nova.on("GET", DETAIL, a_page(*gone, a_server("s-9")))

    listing = await cloud.list(datetime(2026, 11, 20, 22, 0, 7, 9, tzinfo=UTC))

    assert nova.asked[-1].query["changes-since"] == "2026-11-20T22:00:07Z"
    assert "tags" not in nova.asked[-1].query
    assert not listing.complete
    found = {s.id: (s.state, s.owner) for s in listing.servers}
    assert found == {
        "built": (ServerState.DELETED, OWNER),
        "listed": (ServerState.DELETED, OWNER),
        "s-9": (ServerState.ACTIVE, OWNER),
    }


@pytest.mark.parametrize(("lacking", "known"), [(1, True), (2, False)])
async def test_servers_that_two_complete_listings_lack_are_forgotten(
    nova: WrittenNova, cloud: NovaCloud, lacking: int, known: bool
) -> None:
    """After one, a listing of changes may still have to say whose they were."""
    nova.on("GET", DETAIL, a_page(a_server("s-1")), *[a_page()] * lacking)
    for _ in range(1 + lacking):
        await cloud.list(None)
    nova.on("GET", DETAIL, a_page(a_server("s-1", status="DELETED", tags=[])))

    found = (await cloud.list(datetime(2026, 11, 20, tzinfo=UTC))).servers
    assert [(s.id, s.owner) for s in found] == ([("s-1", OWNER)] if known else [])


async def test_a_listing_is_as_old_as_its_first_page_in_the_clouds_time(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    def dated(body: dict[str, Any], second: int) -> Handler:
        async def answer(_: web.Request) -> web.Response:
            date = f"Fri, 20 Nov 2026 22:20:{second:02} GMT"
            return web.json_response(body, headers={"Date": date})

        return answer

    nova.on("GET", DETAIL, dated(a_page(a_server(), marker="s-1"), 5), dated(a_page(), 50))

    assert (await cloud.list(None)).taken_at == datetime(2026, 11, 20, 22, 20, 5, tzinfo=UTC)


@pytest.mark.parametrize(("newest", "asked"), [("2.96", "2.90"), ("2.60", "2.60")])
async def test_reading_asks_for_as_much_as_the_cloud_has(
    nova: WrittenNova, cloud: NovaCloud, newest: str, asked: str
) -> None:
    nova.newest = newest
    nova.on("GET", "/v2.1/servers/s-1", {"server": a_server()})

    await cloud.get(ServerId("s-1"))

    assert nova.asked[-1].headers["OpenStack-API-Version"] == f"compute {asked}"


async def test_a_nova_that_is_too_old_is_told_by_its_version(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    nova.newest = "2.40"

    with pytest.raises(CloudUnavailable, match=r"has 2\.40; 2\.52 is needed"):
        await cloud.create(REQUEST)

    assert nova.count("POST", SERVERS) == 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, CredentialsRefused),
        (403, CredentialsRefused),
        (400, CloudUnavailable),
        (503, CloudUnavailable),
    ],
)
async def test_a_login_that_fails_means_that_nothing_was_sent(
    nova: WrittenNova, opened: Open, status: int, kind: type[CloudError]
) -> None:
    """Keystone quotes a password that it finds malformed."""
    nova.on("POST", "/v3/auth/tokens", refuse(status, "'hunter2' is not of type 'string'"))

    with pytest.raises(kind) as caught:
        await opened(login=True).create(REQUEST)

    assert nova.count("POST", SERVERS) == 0
    assert "hunter2" not in str(caught.value)


async def test_racks_that_may_not_be_seen_are_told_as_such(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    policy = "Policy doesn't allow os_compute_api:os-aggregates:index to be performed."
    nova.on("GET", "/v2.1/os-aggregates", refuse(403, policy))

    topology = await cloud.topology()

    assert not topology.visible
    assert "os-aggregates:index" in topology.why_not


async def test_every_call_is_told_with_its_outcome(nova: WrittenNova, opened: Open) -> None:
    told: list[tuple[str, float, str]] = []
    cloud = opened(lambda *call: told.append(call))
    nova.on("GET", "/v2.1/servers/s-1", {"server": a_server()})
    nova.on("POST", SERVERS, refuse(500, "oops"))

    await cloud.get(ServerId("s-1"))
    await error_of(cloud.create(REQUEST))

    assert [(name, outcome) for name, _, outcome in told] == [
        ("get server", "ok"),
        ("create server", "OutcomeUnknown"),
    ]
    assert all(0 < seconds < 5 for _, seconds, _ in told)


async def test_the_environment_is_not_asked(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_REGION_NAME", "Elsewhere")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", "/nonexistent/clouds.yaml")
    monkeypatch.setenv("OS_CLOUD", "other")

    assert opened().region == "Here"


async def test_a_closed_cloud_does_nothing(nova: WrittenNova, cloud: NovaCloud) -> None:
    await cloud.close()

    with pytest.raises(CloudUnavailable, match="closed"):
        await cloud.delete(ServerId("s-1"))

    assert not nova.asked


IMAGES, FLAVORS, NETWORKS = "/glance/v2/images", "/v2.1/flavors", "/neutron/v2.0/networks"
UUID = "0a3b5c4e-f639-4b37-ad25-7f9b13e8f960"
A_FLAVOR = {
    "vcpus": 2,
    "ram": 512,
    "disk": 10,
    "OS-FLV-EXT-DATA:ephemeral": 5,
    "swap": 1500,
    "extra_specs": {"hw:x": "1"},
}
SIZE = FlavorSize(2, 512, 17, (("hw:x", "1"),))


def furnish(nova: WrittenNova) -> None:
    nova.on("GET", FLAVORS, {"flavors": [{"id": "f-1", "name": "m1.small"}]})
    nova.on("GET", f"{FLAVORS}/f-1", {"flavor": A_FLAVOR})
    nova.on("GET", IMAGES, {"images": [{"id": UUID, "name": "tiny"}]})
    nova.on("GET", NETWORKS, {"networks": [{"id": "n-1", "name": "lan"}]})


def a_template(**over: Any) -> Template:
    return Template(**{"flavor": "m1.small", "image": "tiny", **over})


async def test_names_become_ids(nova: WrittenNova, cloud: NovaCloud) -> None:
    furnish(nova)
    nova.on("GET", "/v2.1/os-keypairs/ops", {"keypair": {"name": "ops"}})
    template = a_template(
        networks=[Network(network="lan")],
        key_pair="ops",
        security_groups=["web"],
        metadata={"b": "2", "a": "1"},
        tags=["t"],
        user_data=SECRET,
    )

    spec = await cloud.resolve(template, ())

    meta = (("a", "1"), ("b", "2"))
    assert spec == BuildSpec(
        "f-1", UUID, ("n-1",), None, ("web",), "ops", meta, ("t",), False, SIZE
    )


async def test_flavors_are_looked_for_on_every_page(nova: WrittenNova, cloud: NovaCloud) -> None:
    furnish(nova)
    link = {"rel": "next", "href": "http://x/flavors?marker=f-0"}
    first = {"flavors": [{"id": "f-0", "name": "other"}], "flavors_links": [link]}
    nova.on("GET", FLAVORS, first, {"flavors": [{"id": "f-1", "name": "m1.small"}]})

    assert (await cloud.resolve(a_template(), ())).flavor_id == "f-1"


async def test_a_community_image_is_found_by_its_id(nova: WrittenNova, cloud: NovaCloud) -> None:
    furnish(nova)
    nova.on("GET", IMAGES, {"images": []})
    nova.on("GET", f"{IMAGES}/{UUID}", {"id": UUID, "name": "shared", "status": "active"})

    assert (await cloud.resolve(a_template(image=UUID), ())).image_id == UUID


async def test_an_image_that_is_not_active_is_told_with_its_status(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    furnish(nova)
    nova.on("GET", IMAGES, {"images": []})
    nova.on("GET", f"{IMAGES}/{UUID}", {"id": UUID, "name": "tiny", "status": "queued"})

    with pytest.raises(DependencyMissing, match="is 'queued', not 'active'"):
        await cloud.resolve(a_template(image=UUID), ())


@pytest.mark.parametrize(
    ("over", "field", "reason"),
    [
        ({"flavor": "x"}, "spec.template.flavor", Reason.FLAVOR_NOT_FOUND),
        ({"image": "x"}, "spec.template.image", Reason.IMAGE_NOT_FOUND),
        (
            {"networks": [Network(network="lan"), Network(network="x")]},
            "spec.template.networks[1].network",
            Reason.NETWORK_NOT_FOUND,
        ),
        ({"key_pair": "x"}, "spec.template.keyPair", Reason.KEY_PAIR_NOT_FOUND),
        ({}, "spec.availabilityZones[1]", Reason.ZONE_NOT_FOUND),
    ],
)
async def test_what_is_missing_is_told_by_its_field(
    nova: WrittenNova, cloud: NovaCloud, over: dict[str, Any], field: str, reason: Reason
) -> None:
    furnish(nova)
    nova.on("GET", "/v2.1/os-keypairs", {"keypairs": [{"keypair": {"name": "ops"}}]})
    nova.on("GET", "/v2.1/os-availability-zone", {"availabilityZoneInfo": [{"zoneName": "az1"}]})

    with pytest.raises(DependencyMissing) as caught:
        await cloud.resolve(a_template(**over), ("az1", "x"))

    assert (caught.value.field, caught.value.reason) == (field, reason)
    assert str(caught.value).startswith(f"{field}: no ")
    assert "'x'" in str(caught.value)


async def test_an_id_that_no_status_takes_is_the_clouds_fault(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    """Whoever writes a pool says where its cloud is: it may answer anything."""
    furnish(nova)
    image = {"id": "i" * 256, "name": "tiny", "status": "active"}
    nova.on("GET", IMAGES, {"images": [image]})

    with pytest.raises(CloudUnavailable, match=r"spec\.template\.image: .* of 256 characters"):
        await cloud.resolve(a_template(image="tiny"), ())


async def test_a_catalogue_that_fails_is_no_missing_name(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    furnish(nova)
    nova.on("GET", IMAGES, refuse(503, "glance is away"))

    with pytest.raises(CloudUnavailable, match="list images"):
        await cloud.resolve(a_template(), ())


HYPERVISORS, SERVICES = "/v2.1/os-hypervisors/detail", "/v2.1/os-services"
CANDIDATES, AGGREGATES = "/placement/allocation_candidates", "/v2.1/os-aggregates"


def a_hypervisor(name: str, host: str, **over: Any) -> dict[str, Any]:
    row = {"id": f"id-{host}", "hypervisor_hostname": name, "service": {"host": host}}
    return {**row, "state": "up", "status": "enabled", **over}


def a_service(host: str, zone: str = "az1", **over: Any) -> dict[str, Any]:
    return {"host": host, "zone": zone, "state": "up", "status": "enabled", **over}


def a_summary(vcpus: int, ram: int, used: int = 0) -> dict[str, Any]:
    rows = {"VCPU": (vcpus, used), "MEMORY_MB": (ram, 0), "CUSTOM_X": (1, 1)}
    return {"resources": {name: {"capacity": c, "used": u} for name, (c, u) in rows.items()}}


def furnish_hosts(nova: WrittenNova, *hosts: dict[str, Any]) -> None:
    rows = list(hosts) or [a_hypervisor("h1.lab", "h1"), a_hypervisor("h2.lab", "h2")]
    nova.on("GET", HYPERVISORS, {"hypervisors": rows})
    services = [a_service(row["service"]["host"]) for row in rows]
    nova.on("GET", SERVICES, {"services": services})
    nova.on("GET", CANDIDATES, {"provider_summaries": {"id-h1": a_summary(16, 4096, used=3)}})


def sized(**specs: str) -> BuildSpec:
    """A flavor of 2 cores and 512 MB with these extra specs, `_` for their colons."""
    pairs = sorted((key.replace("_", ":", 1), value) for key, value in specs.items())
    return BuildSpec("f", "i", NetworkChoice.NONE, size=FlavorSize(2, 512, 0, tuple(pairs)))


async def test_hypervisors_have_the_room_that_placement_tells(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    furnish_hosts(nova)

    inventory = await cloud.inventory(sized())

    assert inventory.hosts == (
        HostRoom("h1.lab", "h1", "az1", 6),
        HostRoom("h2.lab", "h2", "az1", 0),
    )
    asked = {request.path: request for request in nova.asked}
    assert asked[CANDIDATES].query["resources"] == "MEMORY_MB:512,VCPU:2"
    assert asked[CANDIDATES].headers["OpenStack-API-Version"] == "placement 1.22"
    assert asked[HYPERVISORS].headers["OpenStack-API-Version"] == "compute 2.87"


@pytest.mark.parametrize(
    ("over", "service"),
    [
        ({"state": "down"}, {}),
        ({"status": "disabled"}, {}),
        ({"service": None}, {}),
        ({"hypervisor_hostname": None}, {}),
        ({}, {"state": "down"}),
        ({}, {"status": "disabled"}),
        ({}, {"zone": None}),
        ({}, {"host": "elsewhere"}),
    ],
)
async def test_a_hypervisor_that_takes_no_builds_is_not_there(
    nova: WrittenNova, cloud: NovaCloud, over: dict[str, Any], service: dict[str, Any]
) -> None:
    furnish_hosts(nova)
    nova.on("GET", HYPERVISORS, {"hypervisors": [a_hypervisor("h1.lab", "h1") | over]})
    nova.on("GET", SERVICES, {"services": [a_service("h1") | service]})

    assert (await cloud.inventory(sized())).hosts == ()


async def test_hypervisors_are_read_on_every_page(nova: WrittenNova, cloud: NovaCloud) -> None:
    furnish_hosts(nova)
    link = {"rel": "next", "href": "http://x/os-hypervisors?marker=id-h1"}
    first = {"hypervisors": [a_hypervisor("h1.lab", "h1")], "hypervisors_links": [link]}
    nova.on("GET", HYPERVISORS, first, {"hypervisors": [a_hypervisor("h2.lab", "h2")]})

    assert [host.host for host in (await cloud.inventory(sized())).hosts] == ["h1", "h2"]


@pytest.mark.parametrize(
    "answer",
    [refuse(403, "no"), refuse(406, "old"), refuse(503, "away"), json({}), text("?")],
    ids=["403", "406", "503", "no summaries", "no JSON"],
)
async def test_without_placement_the_room_is_not_known(
    nova: WrittenNova, cloud: NovaCloud, answer: Handler
) -> None:
    furnish_hosts(nova)
    nova.on("GET", CANDIDATES, answer)

    assert [host.room for host in (await cloud.inventory(sized())).hosts] == [None, None]


@pytest.mark.parametrize(
    "specs",
    [{"resources1_VCPU": "1"}, {"trait_group:X": "required"}, {"hw_cpu_policy": "dedicated"}],
    ids=str,
)
async def test_a_flavor_of_several_groups_has_room_that_is_not_known(
    nova: WrittenNova, cloud: NovaCloud, specs: dict[str, str]
) -> None:
    furnish_hosts(nova)
    spec = sized(**specs)
    if "trait_group:X" in specs:
        size = replace(spec.size, extra_specs=(("trait_group:X", "required"),))
        spec = replace(spec, size=size)

    assert [host.room for host in (await cloud.inventory(spec)).hosts] == [None, None]
    assert nova.count("GET", CANDIDATES) == 0


async def test_placement_is_asked_for_the_resources_and_traits_of_the_flavor(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    furnish_hosts(nova)

    await cloud.inventory(
        sized(resources_CUSTOM_X="1", resources_VCPU="0", trait_A="required", trait_B="forbidden")
    )

    asked = next(request for request in nova.asked if request.path == CANDIDATES)
    assert asked.query["resources"] == "CUSTOM_X:1,MEMORY_MB:512"
    assert asked.query["required"] == "A,!B"


async def test_a_flavor_that_asks_for_aggregates_is_aimed_at_their_hosts_alone(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    furnish_hosts(nova)
    gold = {"hosts": ["h2"], "metadata": {"tier": "gold"}}
    nova.on("GET", AGGREGATES, {"aggregates": [gold, {"hosts": ["h1"], "metadata": {}}]})

    spec = sized(aggregate_instance_extra_specs="")
    wanted = (("aggregate_instance_extra_specs:tier", "gold"),)
    inventory = await cloud.inventory(replace(spec, size=replace(spec.size, extra_specs=wanted)))

    assert [host.host for host in inventory.hosts] == ["h2"]


@pytest.mark.parametrize("path", [HYPERVISORS, SERVICES])
async def test_credentials_that_may_not_see_hypervisors_are_told_why(
    nova: WrittenNova, cloud: NovaCloud, path: str
) -> None:
    furnish_hosts(nova)
    nova.on("GET", path, refuse(403, "Policy doesn't allow that to be performed."))

    inventory = await cloud.inventory(sized())

    assert (inventory.visible, inventory.hosts) == (False, ())
    assert "Policy doesn't allow that" in inventory.why_not


async def test_a_nova_that_is_too_old_to_aim_says_so(nova: WrittenNova, cloud: NovaCloud) -> None:
    nova.newest = "2.60"

    inventory = await cloud.inventory(sized())

    assert (inventory.visible, nova.asked) == (False, [])
    assert "has 2.60" in inventory.why_not


async def test_an_aimed_build_names_the_hypervisor(nova: WrittenNova, cloud: NovaCloud) -> None:
    nova.on("POST", SERVERS, json({"server": {"id": "new"}}, 202))

    await cloud.create(ServerRequest("vm-1", OWNER, SPEC, hypervisor="h1.lab"))

    assert nova.bodies[-1]["server"]["hypervisor_hostname"] == "h1.lab"
    assert nova.asked[-1].headers["OpenStack-API-Version"] == "compute 2.74"


LIMITS = {
    "maxTotalInstances": 10,
    "totalInstancesUsed": 4,
    "maxTotalCores": -1,
    "totalCoresUsed": 8,
    "maxTotalRAMSize": 0,
    "totalRAMUsed": -5,
}


async def test_a_quota_may_have_no_bound_or_nothing(nova: WrittenNova, cloud: NovaCloud) -> None:
    nova.on("GET", "/v2.1/limits", {"limits": {"rate": [], "absolute": LIMITS}})

    assert await cloud.quota() == Quota(Usage(4, 10), Usage(8, None), Usage(0, 0))


@pytest.mark.parametrize("limits", [{}, {"absolute": {**LIMITS, "totalCoresUsed": "8"}}], ids=str)
async def test_a_quota_that_cannot_be_read_is_no_quota(
    nova: WrittenNova, cloud: NovaCloud, limits: dict[str, Any]
) -> None:
    nova.on("GET", "/v2.1/limits", {"limits": limits})

    with pytest.raises(CloudUnavailable, match="get limits"):
        await cloud.quota()


async def test_a_flavor_that_goes_while_it_is_looked_up_is_missing(
    nova: WrittenNova, cloud: NovaCloud
) -> None:
    furnish(nova)
    nova.on("GET", f"{FLAVORS}/f-1", refuse(404, "gone"))

    with pytest.raises(DependencyMissing):
        await cloud.resolve(a_template(), ())
