"""OpenStack behind `ports.cloud.Cloud`: the only module that knows openstacksdk and keystoneauth.

What the SDK is used for is its configuration, login and catalogue. The calls themselves are plain
JSON over its session: resource objects cost 1.8 s of CPU per thousand servers, JSON 20 ms. Nothing
is retried here, for whoever asked knows better: a POST is sent once or not at all.
"""

import asyncio
import ssl
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlencode

import requests
import urllib3.exceptions
from keystoneauth1 import exceptions as login
from keystoneauth1.adapter import Adapter
from keystoneauth1.identity.base import BaseIdentityPlugin
from keystoneauth1.session import Session, TCPKeepAliveAdapter
from openstack.config.cloud_region import CloudRegion
from openstack.config.loader import OpenStackConfig
from openstack.exceptions import ConfigException
from openstack.warnings import RemovedInSDK60Warning

from warmpool.api.names import TAG_INSTALLATION, TAG_OWNER
from warmpool.api.v1alpha1.pool import Template
from warmpool.domain.catalogue import Entry
from warmpool.domain.cloud import (
    BuildSpec,
    Identity,
    Inventory,
    Listing,
    Quota,
    Server,
    ServerGroup,
    ServerRequest,
    ServerState,
    Topology,
)
from warmpool.domain.errors import (
    CloudConfigInvalid,
    CloudError,
    CloudUnavailable,
    OutcomeUnknown,
    RequestRejected,
)
from warmpool.domain.ids import InstallationId, ServerId, VmUid
from warmpool.domain.racks import Hosts
from warmpool.effects import nova_groups, nova_inventory, nova_resolve, nova_topology
from warmpool.effects import nova_messages as messages
from warmpool.effects.nova_calls import (
    AIM_VERSION,
    BASE_VERSION,
    READ_VERSION,
    Answer,
    Call,
    Effect,
    Microversion,
    Service,
)
from warmpool.effects.nova_config import read_cloud, secrets_of
from warmpool.effects.nova_reading import Page, clean
from warmpool.effects.nova_refusals import login_refusal

T = TypeVar("T")

Observe = Callable[[str, float, str], None]
"""Told of every call: its name, its seconds with the wait for a thread, and "ok" or the name of
the error class ("CancelledError" too)."""

VERSIONED_PATHS: Final = {Service.IMAGE: "/v2", Service.NETWORK: "/v2.0", Service.PLACEMENT: ""}
"""What a catalogue's endpoint may or may not end with already. Nova's is always versioned."""


MAX_MAJOR: Final = 99
"""Beyond any version of Nova's."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the calls to one cloud."""

    threads: int = 16
    """Calls at a time: about 600/s against a Nova that answers in 20 ms."""
    connect_timeout: float = 5.0
    """Seconds until a connection must stand."""
    silence_timeout: float = 60.0
    """Seconds without a byte after which an answer is given up. Nova itself gives up on its own
    messages after 60."""
    call_timeout: float = 90.0
    """Seconds for one call in all, with the wait for a thread. One page of a listing is a call."""
    page_size: int = 500
    """Servers per page: what is parsed at a time keeps the event loop waiting."""
    max_pages: int = 400
    """Pages of one listing; more are an error."""


def open_cloud(
    clouds_yaml: str,
    cloud: str,
    *,
    installation: InstallationId,
    limits: Limits | None = None,
    observe: Observe | None = None,
) -> "NovaCloud":
    """A cloud by the text of a clouds.yaml. Reads no file and no environment, and calls nobody yet.

    Raises:
        CloudConfigInvalid: with cloud and key, never with a value.
    """
    entry = read_cloud(clouds_yaml, cloud)
    config = OpenStackConfig(load_yaml_config=False, load_envvars=False)
    config.cloud_config = {"clouds": {"cloud": entry}}
    try:
        with warnings.catch_warnings():
            # 4.22 warns of InfluxDB's end whether it is configured or not.
            warnings.simplefilter("ignore", RemovedInSDK60Warning)
            region = config.get_one(cloud="cloud")
        session = region.get_session()
    except login.MissingRequiredOptions as error:
        keys = ", ".join(f"auth.{option.dest}" for option in error.options)
        raise CloudConfigInvalid(f"clouds.yaml: cloud {cloud!r}: {keys} is missing") from None
    except login.NoMatchingPlugin:
        raise CloudConfigInvalid(f"clouds.yaml: cloud {cloud!r}: unknown 'auth_type'") from None
    except login.OptionError as error:
        said = clean(str(error), secrets_of(entry))
        raise CloudConfigInvalid(f"clouds.yaml: cloud {cloud!r}: {said}") from None
    except (ConfigException, login.ClientException, TypeError, ValueError, KeyError):
        # Their texts may repeat values, and so may a cause.
        raise CloudConfigInvalid(f"clouds.yaml: cloud {cloud!r} cannot be used") from None
    limits = limits or Limits()
    return NovaCloud(_Wire(region, session, limits), installation, limits, observe)


class NovaCloud:
    """One cloud with one project's credentials. The contract is `ports.cloud.Cloud`."""

    def __init__(
        self,
        wire: "_Wire",
        installation: InstallationId,
        limits: Limits,
        observe: Observe | None,
    ) -> None:
        self._wire = wire
        self._installation = installation
        self._limits = limits
        self._observe = observe
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="nova")
        self._owners: dict[ServerId, VmUid | None] = {}
        self._lacking: set[ServerId] = set()
        """Whom the last complete listing lacked."""
        self._closed = False

    @property
    def region(self) -> str:
        """Name of the region as clouds.yaml has it. Empty: it names none."""
        return self._wire.region

    async def resolve(
        self, template: Template, zones: tuple[str, ...], entry: Entry | None = None
    ) -> BuildSpec:
        """Turn names into ids."""
        return await nova_resolve.resolve(template, zones, entry, self)

    async def create(self, request: ServerRequest) -> ServerId:
        """POST one server."""
        user_data = request.spec.user_data
        call = Call(
            "create server",
            "/servers",
            method="POST",
            effect=Effect.BUILD,
            json=messages.build_body(request, self._installation),
            version=AIM_VERSION if request.hypervisor else BASE_VERSION,
            withheld=(user_data,) if user_data else (),
        )
        server = await self._ask(call, messages.created)
        self._owners[server] = request.owner
        return server

    async def delete(self, server: ServerId) -> None:
        """Ask for the end of a server."""
        if messages.is_server_id(server):
            call = Call("delete server", f"/servers/{server}", "DELETE", effect=Effect.CHANGE)
            await self._ask(call, messages.found)

    async def get(self, server: ServerId) -> Server | None:
        """One server, or None."""
        if not messages.is_server_id(server):
            return None
        call = Call("get server", f"/servers/{server}", version=READ_VERSION)
        found = await self._ask(call, partial(messages.one_server, installation=self._installation))
        return None if found is None or found.state is ServerState.DELETED else found

    async def find(self, owner: VmUid) -> tuple[Server, ...]:
        """The servers with this owner's tag and ours."""
        tags = f"{TAG_INSTALLATION}{self._installation},{TAG_OWNER}{owner}"
        found: dict[ServerId, Server] = {}
        async for page in self._pages("find servers", {"tags": tags}):
            found.update({s.id: s for s in page.ours if s.owner == owner})
        self._owners.update({s.id: s.owner for s in found.values()})
        return tuple(found.values())

    async def list(self, since: datetime | None) -> Listing:
        """All servers of ours, or what changed.

        `taken_at` is the `Date` of the first page, cut to the second. The clocks of Nova's other
        hosts are not its clock, so let the next listing's `since` overlap.

        Nova takes tags and metadata away with a deleted server, so an incremental listing asks
        without a filter, and names the deleted ones among those that this object has met before.
        """
        if since is None:
            return await self._list_all()
        begin = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        pages = [page async for page in self._pages("list changes", {"changes-since": begin})]
        changed = {s.id: s for page in pages for s in page.ours}
        self._owners.update({s.id: s.owner for s in changed.values()})
        gone = (s for page in pages for s in page.deleted if s.id in self._owners)
        changed.update({s.id: replace(s, owner=self._owners[s.id]) for s in gone})
        return Listing(tuple(changed.values()), complete=False, taken_at=pages[0].taken_at)

    async def identity(self) -> Identity:
        """Project and roles of the token."""
        call = Call("look at token", "")
        return await self._run(call, lambda _: self._wire.identity(call))

    async def topology(self, key: str = "rack") -> Topology:
        """Racks of the hosts, from the host aggregates."""
        return await nova_topology.aggregates(key, self.answer)

    async def traits(self, prefix: str) -> Topology:
        """Racks of the hypervisors, from Placement's traits."""
        return await nova_topology.traits(prefix, self.answer)

    async def hosts(self) -> Hosts:
        """All compute hosts."""
        return await nova_topology.hosts(self.answer)

    async def inventory(self, spec: BuildSpec) -> Inventory:
        """The hypervisors that take builds, and their room."""
        call = Call("look for compute service", "")
        newest = await self._run(call, lambda _: self._wire.newest(call))
        if newest < AIM_VERSION:
            has, needs = (f"{version[0]}.{version[1]}" for version in (newest, AIM_VERSION))
            why = f"Nova here has {has}: builds can be aimed at hypervisors from {needs} on"
            return Inventory(visible=False, why_not=why)
        return await nova_inventory.inventory(spec.size, self.answer)

    async def quota(self) -> Quota:
        """What the project may have and what it uses."""
        return await self._ask(Call("get limits", "/limits"), messages.quota)

    async def groups(self) -> tuple[ServerGroup, ...]:
        """The project's anti-affinity groups."""
        return await nova_groups.groups(self.answer)

    async def create_group(self, name: str) -> str:
        """A new one."""
        return await nova_groups.create(name, self.answer)

    async def delete_group(self, group: str) -> None:
        """Delete one."""
        await nova_groups.delete(group, self.answer)

    async def down_hosts(self) -> frozenset[str]:
        """Hosts whose nova-compute is silent. Disabled ones are not: what runs there works."""
        call = Call("list services", "/os-services", query={"binary": "nova-compute"})
        return await self._ask(call, messages.down_hosts)

    async def console(self, server: ServerId, lines: int) -> str:
        """The end of a console."""
        if not messages.is_server_id(server):
            return ""
        json = {"os-getConsoleOutput": {"length": lines}}
        call = Call("get console", f"/servers/{server}/action", "POST", json=json)
        return await self._ask(call, messages.console)

    async def rebuild(self, server: ServerId, image_id: str) -> None:
        """Build a server anew in its place."""
        await self._change("rebuild server", server, "action", {"rebuild": {"imageRef": image_id}})

    async def set_metadata(self, server: ServerId, items: Mapping[str, str]) -> None:
        """Write metadata, and leave what is not named."""
        await self._change("set metadata", server, "metadata", {"metadata": dict(items)})

    async def close(self) -> None:
        """Free threads and connections. Calls under way end with their own time-outs."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._wire.close()

    async def body(self, call: Call) -> bytes | None:
        """Body of a good answer to a reading call, or None for 404: see `nova_calls.Lookup`."""
        return await self._ask(call, messages.found)

    async def answer(self, call: Call) -> Answer:
        """Whatever is answered to a call."""
        return await self._ask(call, lambda answer: answer)

    async def send(self, call: Call) -> None:
        """Make one call that changes something, for `nova_estate`."""
        await self._ask(call, messages.good)

    async def has(self, service: Service) -> bool:
        """Whether the catalogue has the service."""
        call = Call(f"look for {service.value} service", "", service=service)
        return await self._run(call, lambda _: self._wire.has(service))

    async def _list_all(self) -> Listing:
        """Forget whom two complete listings in a row lack, but for those met since they began.

        One that ended while this one was read may still have to be named by a listing of changes.
        """
        before = set(self._owners)
        query = {"tags": f"{TAG_INSTALLATION}{self._installation}"}
        pages = [page async for page in self._pages("list servers", query)]
        found = {s.id: s for page in pages for s in page.ours}
        complete = not any(page.fragments for page in pages)
        lacking = before - set(found) if complete else set()
        for gone in lacking & self._lacking:
            self._owners.pop(gone, None)
        self._lacking = lacking
        self._owners.update({s.id: s.owner for s in found.values()})
        return Listing(tuple(found.values()), complete=complete, taken_at=pages[0].taken_at)

    async def _pages(self, name: str, query: Mapping[str, str]) -> AsyncIterator[Page]:
        """The pages of a listing, each a call of its own, read in its thread."""
        read = partial(messages.page, installation=self._installation)
        base = {**query, "limit": str(self._limits.page_size)}
        marker: str | None = None
        for _ in range(self._limits.max_pages):
            page_query = base if marker is None else {**base, "marker": marker}
            call = Call(name, "/servers/detail", query=page_query, version=READ_VERSION)
            page = await self._ask(call, read)
            yield page
            if page.marker is None:
                return
            if page.marker == marker:
                break
            marker = page.marker
        raise CloudUnavailable(f"{name}: the pages do not end")

    async def _change(self, name: str, server: ServerId, below: str, json: object) -> None:
        if not messages.is_server_id(server):
            raise RequestRejected(f"{name}: {server[:64]!r} is no id of a server")
        path = f"/servers/{server}/{below}"
        await self._ask(Call(name, path, "POST", effect=Effect.CHANGE, json=json), messages.good)

    async def _ask(self, call: Call, read: Callable[[Answer], T]) -> T:
        """Make one call in a thread, and read its answer there."""
        return await self._run(call, lambda gate: read(self._wire.exchange(call, gate)))

    async def _run(self, call: Call, work: Callable[["_Gate"], T]) -> T:
        if self._closed:
            raise CloudUnavailable(f"{call.name}: this cloud was closed")
        loop = asyncio.get_running_loop()
        gate, began, outcome = _Gate(), loop.time(), "ok"
        try:
            async with asyncio.timeout(self._limits.call_timeout):
                return await loop.run_in_executor(self._threads, work, gate)
        except TimeoutError as error:
            lost = _timed_out(call, sent=gate.shut(), seconds=self._limits.call_timeout)
            outcome = type(lost).__name__
            raise lost from error
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            gate.shut()
            if self._observe is not None:
                self._observe(call.name, loop.time() - began, outcome)


class _Gate:
    """Lets a request out once, unless nobody waits for it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True
        self._passed = False

    def pass_through(self) -> bool:
        """Whether the request may be sent. From then on it counts as sent."""
        with self._lock:
            self._passed = self._open
            return self._passed

    def shut(self) -> bool:
        """Let nothing out from now on. Whether it is out already."""
        with self._lock:
            self._open = False
            return self._passed


class _Wire:
    """HTTP over keystoneauth: blocking, to be called in threads. One for all threads of a cloud."""

    def __init__(self, config: CloudRegion, session: Session, limits: Limits) -> None:
        self.region = str(config.get_region_name("compute") or "")
        self._session = session
        self._timeout = (limits.connect_timeout, limits.silence_timeout)
        session.timeout = limits.silence_timeout  # for what keystoneauth asks by itself
        for scheme in ("https://", "http://"):
            pool = TCPKeepAliveAdapter(pool_maxsize=limits.threads)
            session.session.mount(scheme, pool)
        self._adapters = {
            service: Adapter(
                session,
                service_type=config.get_service_type(service.value),
                interface=config.get_interface(service.value),
                region_name=config.get_region_name(service.value),
                endpoint_override=config.get_endpoint(service.value),
            )
            for service in Service
        }

    def exchange(self, call: Call, gate: _Gate) -> Answer:
        """Send one request, once.

        Login, catalogue and discovery come first: until the request itself goes out, every
        failure means that nothing happened.

        Raises:
            CloudUnavailable: it did not happen, or was a reading call.
            CredentialsRefused: Keystone refuses.
            OutcomeUnknown: it went out, and no answer came back.
        """
        try:
            self._session.get_auth_headers()
            url, version = self._target(call)
        except (login.ClientException, *_NETWORK_ERRORS) as error:
            raise _not_sent(call, error) from error
        if not gate.pass_through():
            raise CloudUnavailable(f"{call.name}: nobody waits for it any more")
        try:
            response = self._session.request(
                url,
                call.method,
                json=call.json,
                headers={"Accept": "application/json"},
                microversion=version,
                microversion_service_type=call.service.value,
                raise_exc=False,
                redirect=False,
                connect_retries=0,
                status_code_retries=0,
                timeout=self._timeout,
                log=False,
            )
        except (login.ClientException, *_NETWORK_ERRORS) as error:
            raise _answer_lost(call, error) from error
        return Answer(call, response.status_code, response.content, response.headers.get("Date"))

    def has(self, service: Service) -> bool:
        """Whether there is an endpoint of the service in the catalogue."""
        try:
            return self._adapters[service].get_endpoint() is not None
        except login.EndpointNotFound:
            return False
        except (login.ClientException, *_NETWORK_ERRORS) as error:
            call = Call(f"look for {service.value} service", "", service=service)
            raise _not_sent(call, error) from error

    def identity(self, call: Call) -> Identity:
        """Whose token it is."""
        auth = self._session.auth
        if not isinstance(auth, BaseIdentityPlugin):
            raise CloudUnavailable(f"{call.name}: these credentials ask no Keystone")
        try:
            access = auth.get_access(self._session)
        except (login.ClientException, *_NETWORK_ERRORS) as error:
            raise _not_sent(call, error) from error
        if not access.project_id:
            raise CloudUnavailable(f"{call.name}: it is scoped to no project")
        roles = frozenset(str(role) for role in access.role_names or ())
        return Identity(
            project_id=str(access.project_id),
            project=str(access.project_name),
            domain_id=str(access.project_domain_id or ""),
            domain=str(access.project_domain_name or ""),
            roles=roles,
        )

    def newest(self, call: Call) -> Microversion:
        """The newest microversion that Nova has."""
        try:
            return self._nova((MAX_MAJOR, 0))[1]
        except (login.ClientException, *_NETWORK_ERRORS) as error:
            raise _not_sent(call, error) from error

    def close(self) -> None:
        """Close idle connections."""
        self._session.session.close()

    def _target(self, call: Call) -> tuple[str, str | None]:
        """URL of a call, and the microversion to ask for."""
        version: Microversion | None = None
        if call.service is Service.COMPUTE:
            base, version = self._nova(call.version)
        else:
            base = _versioned(self._adapters[call.service].get_endpoint(), call.service)
            version = call.version if call.service is Service.PLACEMENT else None
        query = f"?{urlencode(call.query)}" if call.query else ""
        return f"{base}{call.path}{query}", version and f"{version[0]}.{version[1]}"

    def _nova(self, wanted: Microversion) -> tuple[str, Microversion]:
        """Endpoint of Nova, and the newest microversion up to the one wanted."""
        data = self._adapters[Service.COMPUTE].get_endpoint_data()
        if data is None or not data.url:
            raise login.EndpointNotFound("the catalogue has no compute service in this region")
        newest = data.max_microversion
        if newest is None or newest < BASE_VERSION:
            told = "tells no microversion" if newest is None else f"has {newest[0]}.{newest[1]}"
            raise login.EndpointNotFound(
                f"Nova at {data.url} {told}; {BASE_VERSION[0]}.{BASE_VERSION[1]} is needed"
            )
        return data.url.rstrip("/"), min(wanted, (int(newest[0]), int(newest[1])))


_NETWORK_ERRORS: Final = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)
"""What keystoneauth lets through besides its own."""

_NEVER_CONNECTED: Final = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    ssl.SSLCertVerificationError,
)


def _versioned(endpoint: str | None, service: Service) -> str:
    if not endpoint:
        raise login.EndpointNotFound(f"the catalogue has no {service.value} service in this region")
    base, version = endpoint.rstrip("/"), VERSIONED_PATHS[service]
    return base if base.endswith(version) else f"{base}{version}"


def _not_sent(call: Call, error: Exception) -> CloudError:
    if isinstance(error, login.HttpError):
        return login_refusal(call, error.http_status or 0, error.url or "")
    return CloudUnavailable(f"{call.name}: {clean(str(error))}")


def _answer_lost(call: Call, error: Exception) -> CloudError:
    """What a failure means that came after the request was let out.

    A 401 makes keystoneauth log in again, so Keystone's refusal can come up here too.
    """
    if isinstance(error, login.HttpError):
        return _not_sent(call, error)
    said = f"{call.name}: {clean(str(error), call.withheld)}"
    if call.effect is Effect.NONE or _never_connected(error):
        return CloudUnavailable(said)
    return OutcomeUnknown(said)


def _never_connected(error: BaseException) -> bool:
    """Whether no connection stood: then no request went out. Looks through the wrappings."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        one = todo.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        if isinstance(one, _NEVER_CONNECTED):
            return True
        seen.add(id(one))
        todo += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return False


def _timed_out(call: Call, *, sent: bool, seconds: float) -> CloudError:
    if sent and call.effect is not Effect.NONE:
        return OutcomeUnknown(f"{call.name}: no answer within {seconds:g} s")
    waited = "no answer" if sent else "not sent"
    return CloudUnavailable(f"{call.name}: {waited} within {seconds:g} s")
