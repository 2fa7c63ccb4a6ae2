"""What all tests share."""

import asyncio
import contextlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from warmpool.tools.controlplane import ControlPlane

# looptime asks for the current event loop before every test, and asyncio makes one that nobody
# closes, unless it was told that there is none.
asyncio.set_event_loop(None)

settings.register_profile(
    "normal", max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", parent=settings.get_profile("normal"), max_examples=20000)
settings.load_profile("normal")


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real control plane of the session's own, which no test breaks."""
    with own_control_plane() as started:
        yield started


@pytest.fixture(scope="session")
def fragile() -> Iterator[ControlPlane]:
    """Another one, whose API server tests stop, kill and restart, and mend again.

    The controllers' watches come back only after a back-off that grows with every such test, to
    half a minute: nobody who waits for the garbage collector may share it.
    """
    with own_control_plane() as started:
        yield started


@contextlib.contextmanager
def own_control_plane() -> Iterator[ControlPlane]:
    if "WARMPOOL_KUBECONFIG" in os.environ:
        pytest.skip("WARMPOOL_KUBECONFIG names a cluster, so none is started")
    with ControlPlane() as started:
        started.assert_test_context()
        yield started
