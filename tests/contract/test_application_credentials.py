"""Logins over HTTP: application credentials, tokens that end, and credentials that are revoked."""

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
import yaml

from warmpool.api.v1alpha1.pool import Template
from warmpool.domain.cloud import ServerRequest
from warmpool.domain.errors import CloudError, CredentialsRefused
from warmpool.domain.ids import InstallationId, VmUid
from warmpool.effects.nova import NovaCloud, open_cloud
from warmpool.sim.credentials import Credential
from warmpool.sim.http import Running, running
from warmpool.sim.scenarios import demo
from warmpool.sim.spec import GuestSpec, Timings

LOGIN = "POST /identity/v3/auth/tokens"
USER = {"username": "member", "user_domain_name": "Default"}


class Site:
    """A cloud over HTTP, and what its Keystone's owner may do."""

    def __init__(self, served: Running) -> None:
        self.served = served
        self.opened: list[NovaCloud] = []

    @property
    def logins(self) -> int:
        return self.served.nova.traffic.calls[LOGIN]

    def credential(self, *, roles: tuple[str, ...] = ("member",), lasts: float = 0) -> Credential:
        """Make an application credential; it lasts so many seconds, or for ever."""
        until = self.served.nova.world.time.moment() + timedelta(seconds=lasts) if lasts else None
        ident = uuid.uuid4().hex
        made = Credential(ident, f"ours-{ident}", "member", "hunter2", roles, until)
        self.served.site.credentials.add(made)
        return made

    def open(self, made: Credential | None = None, **auth: Any) -> NovaCloud:
        """With an application credential, or the member's password."""
        entry = yaml.safe_load(self.served.clouds_yaml())["clouds"]["sim-member"]
        if made is not None:
            named = auth or {"application_credential_id": made.id}
            url = entry["auth"]["auth_url"]
            entry["auth_type"] = "v3applicationcredential"
            entry["auth"] = {"auth_url": url, "application_credential_secret": made.secret} | named
        text = yaml.safe_dump({"clouds": {"lab": entry}})
        self.opened.append(open_cloud(text, "lab", installation=InstallationId("here")))
        return self.opened[-1]


def a_world(token: float = 86_400.0) -> Any:
    timings = Timings(post=(0.01, 0.01), build=(0.05, 0.05), token=token)
    return demo().model_copy(update={"timings": timings, "guests": GuestSpec(listen=False)})


@pytest.fixture
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with running(a_world(**getattr(request, "param", {}))) as served:
        made = Site(served)
        yield made
        for cloud in made.opened:
            await cloud.close()


def short_lived(seconds: float) -> pytest.MarkDecorator:
    """Tokens of this Keystone last so long."""
    return pytest.mark.parametrize("site", [{"token": seconds}], indirect=True)


async def build(cloud: NovaCloud) -> None:
    spec = await cloud.resolve(Template(flavor="m1.micro", image="debian-13"), ())
    await cloud.create(ServerRequest("vm", VmUid(str(uuid.uuid4())), spec))


async def refused(cloud: NovaCloud) -> CloudError:
    with pytest.raises(CredentialsRefused) as caught:
        await cloud.list(None)
    assert "hunter2" not in str(caught.value)
    return caught.value


async def test_an_application_credential_is_as_good_as_a_password(site: Site) -> None:
    made = site.credential()
    cloud = site.open(made)
    await build(cloud)
    assert len((await cloud.list(None)).servers) == 1
    who = await cloud.identity()
    assert (who.project, who.roles) == ("demo", {"member"})
    assert not (await cloud.hosts()).visible


async def test_an_application_credential_may_be_named_by_its_user(site: Site) -> None:
    made = site.credential()
    cloud = site.open(made, application_credential_name=made.name, **USER)
    assert (await cloud.list(None)).complete


async def test_an_application_credential_has_no_more_roles_than_it_was_given(site: Site) -> None:
    ident = uuid.uuid4().hex
    made = Credential(ident, "reader", "admin", "hunter2", ("member", "reader"))
    site.served.site.credentials.add(made)
    assert not (await site.open(made).hosts()).visible


@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_revoked_application_credential_is_refused_though_its_token_had_not_ended(
    site: Site, by: str
) -> None:
    """By its id Keystone answers 404: that was taken for a cloud that is away."""
    made = site.credential()
    name = {} if by == "id" else {"application_credential_name": made.name, **USER}
    cloud = site.open(made, **name)
    await cloud.list(None)
    site.served.site.credentials.delete(made.id)
    said = str(await refused(cloud))
    assert f"Keystone answered {404 if by == 'id' else 401} to the login" in said
    assert (await site.open().list(None)).complete


async def test_an_application_credential_that_has_ended_is_refused(site: Site) -> None:
    cloud = site.open(site.credential(lasts=3600))
    await cloud.list(None)
    site.served.site.push(3700)
    assert "401" in str(await refused(cloud))


async def test_a_token_serves_many_calls(site: Site) -> None:
    cloud = site.open()
    for _ in range(3):
        await cloud.list(None)
    assert site.logins == 1


@short_lived(seconds=100)
async def test_a_token_is_renewed_before_it_ends(site: Site) -> None:
    """A new one is had when the last two minutes of the old have begun."""
    cloud = site.open()
    await cloud.list(None)
    before = site.logins
    await cloud.list(None)
    assert site.logins > before
    assert not site.served.site.refused


async def test_a_token_that_ended_sooner_than_it_said_costs_no_call(site: Site) -> None:
    """Clocks that differ, a revoked token: the 401 is answered by a login, and a POST is one."""
    cloud = site.open(site.credential())
    await cloud.list(None)
    site.served.site.push(90_000)
    await build(cloud)
    site.served.site.tokens.clear()
    await build(cloud)
    assert len((await cloud.list(None)).servers) == 2
    assert site.served.site.refused == 2


async def test_credentials_are_made_shown_and_revoked_by_their_user_alone(site: Site) -> None:
    """The simulator's Keystone, as the real one answers."""
    url = f"{site.served.url}/identity/v3"
    made = site.credential(roles=("member", "reader"))
    method = {"id": made.id, "secret": made.secret}
    identity = {"methods": ["application_credential"], "application_credential": method}
    async with aiohttp.ClientSession() as http:

        async def ask(verb: str, path: str, body: object = None, token: str = "") -> Any:
            headers = {"X-Auth-Token": token}
            async with http.request(verb, url + path, json=body, headers=headers) as answer:
                told = await answer.json() if answer.content_type == "application/json" else None
                return answer.status, told, answer.headers.get("X-Subject-Token", "")

        scoped = {"identity": identity, "scope": {"project": {"name": "demo"}}}
        assert (await ask("POST", "/auth/tokens", {"auth": scoped}))[0] == 401
        status, body, token = await ask("POST", "/auth/tokens", {"auth": {"identity": identity}})
        assert (status, body["token"]["application_credential"]["restricted"]) == (201, True)
        own = f"/users/{body['token']['user']['id']}/application_credentials"
        assert (await ask("GET", own, token=token))[0] == 200
        assert (await ask("POST", own, {}, token))[0] == 403

        password = {"name": "member", "password": "sim"}
        identity = {"methods": ["password"], "password": {"user": password}}
        _, _, token = await ask("POST", "/auth/tokens", {"auth": {"identity": identity}})
        asked = {"name": "new", "expires_at": "2999-01-01T00:00:00.000000"}
        for wanted in (201, 409):
            status, body, _ = await ask("POST", own, {"application_credential": asked}, token)
            assert status == wanted
        roles = {"name": "more", "roles": [{"name": "admin"}]}
        assert (await ask("POST", own, {"application_credential": roles}, token))[0] == 400
        assert (await ask("POST", own, [], token))[0] == 400
        _, found, _ = await ask("GET", f"{own}?name=new", token=token)
        [shown] = found["application_credentials"]
        assert (await ask("GET", f"{own}/{shown['id']}", token=token))[0] == 200
        assert (await ask("GET", "/users/other/application_credentials", token=token))[0] == 403
        assert (await ask("DELETE", f"{own}/{shown['id']}", token=token))[0] == 204
        assert (await ask("DELETE", f"{own}/{shown['id']}", token=token))[0] == 404
        assert (await ask("GET", own))[0] == 401
