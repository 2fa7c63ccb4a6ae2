"""Bad input: each mistake is named with its field and remedy, and no other pool suffers."""

from typing import Any

import pytest
import yaml
from harness.sandbox import Sandbox

Body = dict[str, Any]

UNRESOLVED: dict[str, tuple[Body, str, str, str]] = {
    "cloud": ({"cloudRef": {"cloud": "nope"}}, "CloudNotFound", "spec.cloudRef.cloud", "there is"),
    "secret": (
        {"cloudRef": {"secretName": "nope"}},
        "SecretNotFound",
        "spec.cloudRef.secretName",
        "create it",
    ),
    "key": (
        {"cloudRef": {"secretName": "keyless"}},
        "SecretInvalid",
        "spec.cloudRef.secretName",
        "add it",
    ),
    "password": (
        {"cloudRef": {"secretName": "wrong-password"}},
        "CredentialsRefused",
        "spec.cloudRef",
        "clouds.yaml",
    ),
    "flavor": (
        {"template": {"flavor": "nope"}},
        "FlavorNotFound",
        "spec.template.flavor",
        "there is",
    ),
    "image": ({"template": {"image": "nope"}}, "ImageNotFound", "spec.template.image", "there is"),
    "zone": (
        {"availabilityZones": ["nope"]},
        "ZoneNotFound",
        "spec.availabilityZones[0]",
        "there is",
    ),
    "user-data": (
        {"template": {"userDataSecretRef": {"name": "nope", "key": "data"}}},
        "SecretNotFound",
        "spec.template.userDataSecretRef",
        "",
    ),
}

REFUSED: dict[str, tuple[Body, str, str]] = {
    "user-data": ({"template": {"userData": "no base64!"}}, "userData", "base64 -w0"),
    "replicas": ({"replicas": -1}, "spec.replicas", "greater than or equal to 0"),
    "max-size": ({"maxSize": 0}, "maxSize", "raise maxSize or lower replicas"),
    "probe-port": (
        {"health": {"probe": {"tcpSocket": {"port": 0}}}},
        "spec.health.probe.tcpSocket.port",
        "greater than or equal to 1",
    ),
}


def with_wrong_password(sandbox: Sandbox) -> str:
    clouds = yaml.safe_load(sandbox.cloud.clouds_yaml)
    clouds["clouds"][sandbox.cloud.name]["auth"]["password"] = "wrong"  # noqa: S105 - that is the point
    return yaml.safe_dump(clouds)


@pytest.mark.parametrize("mistake", UNRESOLVED)
def test_what_only_the_cloud_can_tell_is_a_condition(sandbox: Sandbox, mistake: str) -> None:
    spec, reason, field, remedy = UNRESOLVED[mistake]
    sandbox.secret("keyless", {"other.yaml": "x"})
    sandbox.secret("wrong-password", {"clouds.yaml": with_wrong_password(sandbox)})
    good = sandbox.pool("good", 1)
    bad = sandbox.pool(
        "bad", 1, **{key: dict(v) if isinstance(v, dict) else v for key, v in spec.items()}
    )
    sandbox.wait(f"warmpool/{bad}", "condition=DependenciesResolved=False")
    told = sandbox.condition(bad, "DependenciesResolved")
    assert told["reason"] == reason
    assert field in told["message"]
    assert remedy in told["message"]
    sandbox.await_status(bad, "state", reason)
    sandbox.await_ready(good, 1)
    sandbox.scale(good, 2)
    sandbox.await_ready(good, 2)
    assert not [name for name in sandbox.servers() if name.startswith(bad)]


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_is_wrong_by_itself_is_not_taken(sandbox: Sandbox, mistake: str) -> None:
    spec, field, remedy = REFUSED[mistake]
    spec = dict(spec)
    replicas = spec.pop("replicas", 1)
    refusal = sandbox.refusal(sandbox.pool_manifest("bad", replicas, **spec))
    assert field in refusal
    assert remedy in refusal


def test_a_claim_of_less_than_one_vm_is_not_taken(sandbox: Sandbox) -> None:
    refusal = sandbox.refusal(sandbox.claim_manifest("none", {"data": -1}))
    assert "spec.requests[0].count" in refusal
    assert "greater than or equal to 1" in refusal


def test_a_password_that_is_put_right_fills_the_pool(sandbox: Sandbox) -> None:
    sandbox.secret("mended", {"clouds.yaml": with_wrong_password(sandbox)})
    pool = sandbox.pool("data", 1, cloudRef={"secretName": "mended"})
    sandbox.wait(f"warmpool/{pool}", "condition=DependenciesResolved=False")
    assert "wrong" not in sandbox.condition(pool, "DependenciesResolved")["message"]
    sandbox.secret("mended", {"clouds.yaml": sandbox.cloud.clouds_yaml})
    sandbox.await_ready(pool, 1)
    assert sandbox.condition(pool, "DependenciesResolved")["status"] == "True"


def test_a_secret_that_comes_later_fills_the_pool(sandbox: Sandbox) -> None:
    pool = sandbox.pool("data", 1, cloudRef={"secretName": "later"})
    sandbox.wait(f"warmpool/{pool}", "condition=DependenciesResolved=False")
    sandbox.secret("later", {"clouds.yaml": sandbox.cloud.clouds_yaml})
    sandbox.await_ready(pool, 1)
