"""A thread that has ended answers nobody, and says so: whoever asked it must not wait for ever."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from warmpool.embed import OperatorThread, Settings
from warmpool.embed.watching import apart


class EndsWhenAsked(OperatorThread):
    """Its loop takes a question in as it ends, and comes to it no more."""

    def _run(self) -> None:
        loop, asked = asyncio.new_event_loop(), threading.Event()
        real = loop.call_soon_threadsafe

        def too_late(*args: object, **kwargs: object) -> asyncio.Handle:
            handle = real(*args, **kwargs)  # type: ignore[arg-type]
            asked.set()
            return handle

        loop.call_soon_threadsafe = too_late  # type: ignore[method-assign]
        self._loop.set_result(loop)
        asked.wait()
        loop.close()
        self._ended.set_exception(OSError("the port is taken"))


@pytest.mark.parametrize("timeout", [None, 60.0], ids=["for-ever", "for-a-minute"])
def test_a_question_that_comes_as_it_ends_is_told_why(timeout: float | None) -> None:
    operator = EndsWhenAsked(Settings(kubeconfig="none"))
    operator.start()
    with pytest.raises(OSError, match="the port is taken"):
        operator.ready(timeout)
    assert not operator.running


class NeverAnswers(EndsWhenAsked):
    """It lives, and says nothing."""

    def _run(self) -> None:
        self._loop.set_result(asyncio.new_event_loop())


def test_an_answer_is_waited_for_no_longer_than_asked() -> None:
    operator = NeverAnswers(Settings(kubeconfig="none"))
    operator.start()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        operator.ready(0.01)
    with contextlib.closing(operator._loop.result()) as loop:
        loop.run_until_complete(asyncio.sleep(0))  # what was asked is taken back


class Stillborn(OperatorThread):
    """There is not even a loop."""

    async def _main(self) -> None:
        raise OSError("too many open files")


def test_one_that_cannot_begin_says_why_to_whoever_waits() -> None:
    operator = Stillborn(Settings(kubeconfig="none"))
    operator.start()
    for wait in (operator.ready, operator.stop, operator.ended):
        with pytest.raises(OSError, match="too many open files"):
            wait()


async def test_watches_that_cannot_begin_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(coroutine: Coroutine[Any, Any, None]) -> None:
        coroutine.close()
        raise OSError("too many open files")

    monkeypatch.setattr(asyncio, "run", fail)
    with pytest.raises(OSError, match="too many open files"):
        await apart(lambda _: asyncio.sleep(0), asyncio.Event())
