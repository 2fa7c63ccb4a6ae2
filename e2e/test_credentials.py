"""Application credentials: as good as passwords until they are revoked, and then one pool waits."""

import pytest
from harness.clouds import CloudUnderTest, Simulator
from harness.rights import Rights
from harness.sandbox import Sandbox

REMEMBERED = 360
"""Seconds by which a Nova has forgotten that a token was good; five minutes by default."""


@pytest.fixture
def rights(cloud: CloudUnderTest, request: pytest.FixtureRequest) -> Rights:
    return Rights(cloud, request.config.getoption("--member"))


def test_a_revoked_application_credential_freezes_one_pool_until_the_secret_is_mended(
    sandbox: Sandbox, rights: Rights
) -> None:
    made = rights.credential(f"e2e-{sandbox.mark}")
    sandbox.secret("application", {"clouds.yaml": rights.by_credential(made)})
    ref = {"secretName": "application", "cloud": rights.member}
    pool = sandbox.full_pool("data", 2, cloudRef=ref)
    other = sandbox.full_pool("logs", 1)
    before = set(sandbox.servers())

    rights.revoke(made["id"])
    seen = 60 if isinstance(sandbox.cloud, Simulator) else REMEMBERED
    sandbox.wait(f"warmpool/{pool}", "condition=DependenciesResolved=False", seconds=seen)
    told = sandbox.condition(pool, "DependenciesResolved")
    assert told["reason"] == "CredentialsRefused"
    assert "correct the credentials in clouds.yaml of the Secret" in told["message"]
    sandbox.scale(pool, 1)
    sandbox.scale(other, 2)
    sandbox.await_ready(other, 2)
    sandbox.bound("two", {pool: 2})
    assert before <= set(sandbox.servers())
    assert sandbox.condition(other, "DependenciesResolved")["status"] == "True"

    mended = rights.credential(f"e2e-{sandbox.mark}-mended")
    sandbox.secret("application", {"clouds.yaml": rights.by_credential(mended)})
    sandbox.wait(f"warmpool/{pool}", "condition=DependenciesResolved")
    sandbox.await_ready(pool, 1)
