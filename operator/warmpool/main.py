"""The composition root: settings to clients to loops to kopf.

The operator lives in one thread with one event loop. That thread is never the main one: kopf, which
takes over signals in the main thread and kills the process if it is cancelled there, is a guest
here, not the host's host. Stopping is by flag, in this order: stop leading and release the Lease,
then end the watches, then close the connections.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import secrets
import signal
import socket
import sys
import threading
import uuid
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Final

import kopf

from warmpool.domain.errors import ClusterError
from warmpool.domain.ids import InstallationId
from warmpool.effects.clock import SystemClock
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.effects.nova import open_cloud
from warmpool.effects.probe import NetworkProber
from warmpool.handlers import hosting, objects
from warmpool.ports.cloud import Cloud
from warmpool.reconcile.election import Elector, LeaseTimes
from warmpool.reconcile.store import Store
from warmpool.reconcile.sweeper import Comparer
from warmpool.reconcile.term import World, lead
from warmpool.settings import Settings

log = logging.getLogger(__name__)

FIRST_LOOK_RETRY: Final = 1.0
"""Seconds between attempts to read the objects for the first time."""

GC_THRESHOLDS: Final = (50_000, 20, 20)
"""Thousands of long-lived records stand in memory: the default walks them far too often, and each
walk is a pause for every claim."""


class Operator:
    """One replica in a thread of its own. `start`, then `stop` once; `wait` in between."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = threading.Thread(target=self._run, name="warmpool", daemon=True)
        self._ended: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._started = threading.Event()

    def start(self) -> None:
        """Begin. Returns when the loop runs; the operator is not yet ready then."""
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """Ask for the end: the Lease is released at once. Does not wait."""
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)

    def wait(self, timeout: float | None = None) -> None:
        """Until it has ended.

        Raises:
            TimeoutError: it has not, in that many seconds.
            Exception: what it died of.
        """
        self._ended.result(timeout)

    @property
    def running(self) -> bool:
        return not self._ended.done()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        settings = self._settings
        credentials = await Credentials.load(settings.kubeconfig, settings.context)
        store = Store()
        async with KubeCluster(credentials, settings.namespace) as cluster:
            await self._first_look(store, cluster)
            if self._stopping.is_set():
                return
            await self._serve(store, cluster, credentials, self._stopping)

    async def _first_look(self, store: Store, cluster: KubeCluster) -> None:
        """Fill the store, however long the API server takes."""
        comparer = Comparer(store, cluster)
        while self._stopping is not None and not self._stopping.is_set():
            try:
                await comparer.compare()
            except ClusterError as error:
                log.warning("cannot read the objects yet: %s", error)
                await asyncio.sleep(FIRST_LOOK_RETRY)
            else:
                break
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    async def _serve(
        self, store: Store, cluster: KubeCluster, login: Credentials, stopping: asyncio.Event
    ) -> None:
        """Watch, contend and lead until told to stop.

        Our own tasks are there before kopf starts: at its end it cancels every task of the loop
        that is younger than itself.
        """
        registry = kopf.OperatorRegistry()
        hosting.register_login(registry, login)
        objects.register(registry, store=store)
        stop_watching = asyncio.Event()
        contending = asyncio.ensure_future(self._contend(store, cluster))
        watching = asyncio.ensure_future(hosting.host(registry, stop_watching))
        told = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait((contending, watching, told), return_when=asyncio.FIRST_COMPLETED)
            ended = watching.done() and not stopping.is_set()
        finally:
            contending.cancel()
            await asyncio.gather(contending, return_exceptions=True)
            stop_watching.set()
            results = await asyncio.gather(watching, return_exceptions=True)
            told.cancel()
        for done in (contending, watching):
            if not done.cancelled() and (error := done.exception()) is not None:
                raise error
        if ended:
            raise RuntimeError(f"the watches ended by themselves: {results[0]!r}")

    async def _contend(self, store: Store, cluster: KubeCluster) -> None:
        settings, clock = self._settings, SystemClock()
        identity = settings.identity or _identity()
        rng = random.Random(secrets.randbits(64))  # noqa: S311 - jitter and names, no secrets
        world = World(
            store=store,
            cluster=cluster,
            open_cloud=_open,
            prober=NetworkProber(),
            clock=clock,
            rng=rng,
            namespace=settings.namespace,
            identity=identity,
            new_installation=lambda: InstallationId(str(uuid.uuid4())),
        )
        times = LeaseTimes(settings.lease, settings.lease_deadline, settings.lease_retry)
        elector = Elector(cluster, clock, identity=identity, times=times, rng=rng)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Comparer(store, cluster).run(), name="comparer")
            tasks.create_task(elector.run(lambda: lead(world, elector.leads)), name="elector")


def _open(clouds_yaml: str, cloud: str, installation: InstallationId) -> Cloud:
    return open_cloud(clouds_yaml, cloud, installation=installation)


def _identity() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def run(settings: Settings) -> int:
    """`warmpool run`: until SIGTERM or SIGINT; the exit status."""
    configure_logging(settings)
    operator = Operator(settings)
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    operator.start()
    while operator.running and not told.wait(0.2):
        pass
    operator.stop()
    try:
        operator.wait()
    except ClusterError as error:
        log.error("%s", error)  # noqa: TRY400 - the text says all there is
        return 1
    except Exception:
        log.exception("the operator has died")
        return 1
    return 0


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(settings: Settings) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    for chatty in ("keystoneauth", "openstack", "urllib3", "asyncio", "stevedore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
