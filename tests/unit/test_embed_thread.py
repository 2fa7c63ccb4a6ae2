"""A thread that has ended answers nobody, and says so: whoever asked it must not wait for ever."""

import asyncio
import contextlib
import threading

import pytest

from warmpool.embed import OperatorThread, Settings


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
