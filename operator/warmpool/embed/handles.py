"""Handles on an operator inside somebody else's program.

`Operator` runs in the event loop of whoever starts it, `OperatorThread` in a thread of its own.
Both may be told not to take part: then they follow and answer, and write nothing at all.
"""

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from warmpool.api.v1alpha1.pool import Claimable
from warmpool.domain.ids import Ref
from warmpool.embed.pacing import paced_loop
from warmpool.embed.replica import Replica
from warmpool.reconcile.fit import Answer
from warmpool.reconcile.replicas import Leader, Member
from warmpool.reconcile.vitals import Turn
from warmpool.settings import Settings

T = TypeVar("T")


class Operator:
    """One replica in the running event loop. An async context manager.

    Everything is to be called in the loop that it was started in. Started once, stopped once.
    """

    _own_loop: ClassVar = False

    def __init__(self, settings: Settings, *, participate: bool = True) -> None:
        """Without `participate` it never leads and writes nothing, not even that it is there."""
        self._replica = Replica(settings, participate=participate, own_loop=self._own_loop)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin. It is not ready yet then."""
        if self._task is not None:
            raise RuntimeError("the operator was started before")
        self._task = asyncio.ensure_future(self._replica.run(self._stopping))

    async def ready(self) -> None:
        """Until it has seen everything that there is.

        Raises:
            Exception: what it died of before.
        """
        seen = asyncio.ensure_future(self._replica.vitals.ready())
        try:
            await asyncio.wait((seen, self._started()), return_when=asyncio.FIRST_COMPLETED)
            if not seen.done():
                self._started().result()
                raise RuntimeError("the operator was stopped before it was ready")
        finally:
            seen.cancel()

    def tell_to_stop(self) -> None:
        """Have it hand back what it holds, and end. Does not wait."""
        self._stopping.set()

    async def stop(self) -> None:
        """Hand back what it holds, and end.

        Raises:
            Exception: what it died of.
        """
        self.tell_to_stop()
        await self.ended()

    async def ended(self) -> None:
        """Until it has ended, by itself or not.

        Raises:
            Exception: what it died of.
        """
        await asyncio.shield(self._started())

    async def __aenter__(self) -> Self:
        self.start()
        try:
            await self.ready()
        except BaseException:
            self.tell_to_stop()
            await asyncio.gather(self._started(), return_exceptions=True)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _started(self) -> "asyncio.Task[None]":
        if self._task is None:
            raise RuntimeError("the operator was not started")
        return self._task

    # -- answers ------------------------------------------------------------------------------

    @property
    def identity(self) -> str:
        """The name of this replica."""
        return self._replica.identity

    @property
    def leads(self) -> bool:
        """Whether it leads at this moment."""
        return self._replica.leads

    @property
    def in_burst(self) -> bool:
        """Whether it is answering a burst of claims at this moment, and all else had better wait.

        May be asked in any thread.
        """
        return self._replica.in_burst

    def lacks(self) -> list[str]:
        """Why it is not ready; empty: it is. What `/readyz` says."""
        return self._replica.vitals.lacks()

    def turns(self) -> list[Turn]:
        """Its loops, and how long ago each turned last. What `/livez` says."""
        return self._replica.vitals.turns()

    def claimable(self, namespace: str, pool: str) -> Claimable | None:
        """The largest claims that a pool could serve now, from memory; None: no such pool."""
        return self._replica.claimable(Ref(namespace, pool))

    async def fit(self, claim: Mapping[str, Any], namespace: str | None = None) -> Answer:
        """What a VMClaim would be answered now, from memory: `Placed`, `Shortage`, `Undecided`.

        Nothing is reserved. Bindings of the last second or two may not be seen yet.

        Args:
            claim: the manifest.
            namespace: of the claim, if the manifest names none.

        Raises:
            ValueError: it is no valid VMClaim; says which field.
        """
        return await self._replica.fit(claim, namespace)

    async def leader(self) -> Leader | None:
        """Who leads, asked of the API server; None: nobody holds the Lease.

        Raises:
            ClusterError: the API server did not answer.
        """
        return await self._replica.leader()

    async def members(self) -> list[Member]:
        """The replicas that take part, asked of the API server, by identity.

        Raises:
            ClusterError: the API server did not answer.
        """
        return await self._replica.members()


class _Alone(Operator):
    """In a loop that is nobody else's."""

    _own_loop = True

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """A loop for it."""
        return paced_loop(lambda: self._replica.is_throng)


class OperatorThread:
    """One replica in a thread of its own, for programs without an event loop or with a busy one.

    A context manager. Its methods block; they may be called in any thread but its own. Started
    once, stopped once.
    """

    def __init__(self, settings: Settings, *, participate: bool = True) -> None:
        """Without `participate` it never leads and writes nothing, not even that it is there."""
        self._operator = _Alone(settings, participate=participate)
        self._thread = threading.Thread(target=self._run, name="warmpool", daemon=True)
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._ended: Future[None] = Future()

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin. It is not ready yet then."""
        self._thread.start()

    def ready(self, timeout: float | None = None) -> None:
        """Until it has seen everything that there is.

        Raises:
            TimeoutError: it has not, in that many seconds.
            Exception: what it died of before.
        """
        self._ask(self._operator.ready, timeout)

    def stop(self) -> None:
        """Hand back what it holds, and end.

        Raises:
            Exception: what it died of.
        """
        loop = self._started().result()
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(self._operator.tell_to_stop)
        self.ended()

    def ended(self, timeout: float | None = None) -> None:
        """Until it has ended, by itself or not.

        Raises:
            TimeoutError: it has not, in that many seconds.
            Exception: what it died of.
        """
        self._started()
        self._ended.result(timeout)

    def collect_garbage(self, generation: int) -> None:
        """Have Python's collector walk soon, in the operator's own thread.

        What it finds may say goodbye to the operator's loop, which is to be done there alone.
        """
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._started().result().call_soon_threadsafe(gc.collect, generation)

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._thread.ident is not None and not self._ended.done()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.ready()
        except BaseException:
            with contextlib.suppress(Exception):
                self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _started(self) -> "Future[asyncio.AbstractEventLoop]":
        if self._thread.ident is None:
            raise RuntimeError("the operator was not started")
        return self._loop

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._operator.new_loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            if not self._loop.done():
                self._loop.set_exception(error)
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _main(self) -> None:
        self._operator.start()
        self._loop.set_result(asyncio.get_running_loop())
        await self._operator.ended()

    def _ask(self, question: Callable[[], Coroutine[Any, Any, T]], timeout: float | None) -> T:
        """Have it answered in the operator's loop, which may end before it comes to that."""
        loop = self._started().result(timeout)
        asked = question()
        try:
            answer = asyncio.run_coroutine_threadsafe(asked, loop)
        except RuntimeError:  # the loop is closed
            asked.close()
            raise self._over() from None
        either: list[Future[Any]] = [answer, self._ended]
        wait(either, timeout, FIRST_COMPLETED)
        if answer.done() and not answer.cancelled():
            return answer.result()
        if not self._ended.done() and not answer.cancelled():
            answer.cancel()
            raise TimeoutError(f"no answer within {timeout:g} s")
        asked.close()
        raise self._over()

    def _over(self) -> Exception:
        """What to raise where nobody answers any more.

        Raises:
            Exception: what it died of.
        """
        self._ended.result()
        return RuntimeError("the operator has ended")

    # -- answers ------------------------------------------------------------------------------

    @property
    def identity(self) -> str:
        """The name of this replica."""
        return self._operator.identity

    @property
    def leads(self) -> bool:
        """Whether it leads at this moment."""
        return self._operator.leads

    @property
    def in_burst(self) -> bool:
        """As `Operator.in_burst`."""
        return self._operator.in_burst

    def lacks(self) -> list[str]:
        """As `Operator.lacks`."""
        return self._operator.lacks()

    def turns(self) -> list[Turn]:
        """As `Operator.turns`."""
        return self._operator.turns()

    def claimable(self, namespace: str, pool: str) -> Claimable | None:
        """As `Operator.claimable`."""

        async def answered() -> Claimable | None:
            return self._operator.claimable(namespace, pool)

        return self._ask(answered, None)

    def fit(self, claim: Mapping[str, Any], namespace: str | None = None) -> Answer:
        """As `Operator.fit`."""
        return self._ask(lambda: self._operator.fit(claim, namespace), None)

    def leader(self) -> Leader | None:
        """As `Operator.leader`."""
        return self._ask(self._operator.leader, None)

    def members(self) -> list[Member]:
        """As `Operator.members`."""
        return self._ask(self._operator.members, None)
