"""Threads that nobody waits for at the end."""

import asyncio
import threading

import pytest

from warmpool.effects.threads import Daemons


async def test_work_is_done_and_what_goes_wrong_is_told() -> None:
    threads, loop = Daemons(2, "test"), asyncio.get_running_loop()
    assert await loop.run_in_executor(threads, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(threads, divmod, 7, 0)
    threads.shutdown()


async def test_what_is_taken_back_in_time_is_not_done() -> None:
    threads, loop = Daemons(1, "test"), asyncio.get_running_loop()
    goes, done = threading.Event(), []
    first = loop.run_in_executor(threads, goes.wait)
    second = threads.submit(done.append, 1)
    assert second.cancel()
    goes.set()
    assert await first
    assert await loop.run_in_executor(threads, len, done) == 0
    threads.shutdown()


def test_at_the_end_the_threads_go_when_all_is_done() -> None:
    threads = Daemons(2, "ends")
    done = threads.submit(len, "abc")
    threads.shutdown(wait=True)
    assert done.result(10) == 3
    for thread in threading.enumerate():
        if thread.name.startswith("ends-"):
            thread.join(10)
            assert not thread.is_alive()
