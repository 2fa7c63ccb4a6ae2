"""kopf as a host: its settings, its login, its start and end."""

import asyncio
from typing import Any

import kopf

from warmpool.api.names import KOPF_FINALIZER
from warmpool.ports.cluster import Login


class _NoDiffs(kopf.DiffBaseStorage):
    """Nothing of kopf's is kept on our objects."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """Nothing of kopf's is kept on our objects."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def kopf_settings() -> kopf.OperatorSettings:
    """How kopf runs: it watches and calls, and writes nothing."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 5
    settings.watching.inactivity_timeout = 70
    settings.watching.reconnect_backoff = 0.1
    settings.watching.chunk_size = 500  # thousands of objects at once would stop the loop
    settings.queueing.idle_timeout = 2
    settings.queueing.exit_timeout = 2
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    # Patience for an API server that is down for minutes: when these are used up, kopf stops.
    settings.networking.error_backoffs = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 30, 30, 30]
    settings.persistence.finalizer = KOPF_FINALIZER
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.persistence.progress_storage = _NoProgress()
    settings.process.ultimate_exiting_timeout = 60
    return settings


def register_login(registry: kopf.OperatorRegistry, credentials: Login) -> None:
    """Kopf speaks to the API server with the same credentials as we do."""

    @kopf.on.login(id="login", registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        where = credentials.endpoint
        return kopf.ConnectionInfo(
            server=where.server,
            ca_path=where.ca_path,
            insecure=where.insecure,
            token=await credentials.token(),
            scheme="Bearer",
            certificate_path=where.certificate_path,
            private_key_path=where.private_key_path,
        )


async def host(registry: kopf.OperatorRegistry, stop: asyncio.Event) -> None:
    """Run kopf until `stop` is set."""
    await kopf.operator(
        registry=registry, settings=kopf_settings(), stop_flag=stop, clusterwide=True
    )
