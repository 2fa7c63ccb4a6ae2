"""clouds.yaml: what is refused, and that no refusal tells a secret."""

import pytest
import yaml

from warmpool.api.names import Reason
from warmpool.domain.errors import CloudConfigInvalid
from warmpool.domain.ids import InstallationId
from warmpool.effects.nova import open_cloud
from warmpool.effects.nova_config import read_cloud

AUTH = {
    "auth_url": "http://keystone.invalid/v3",
    "username": "lab",
    "password": "hunter2",
    "project_name": "lab",
    "user_domain_name": "Default",
    "project_domain_name": "Default",
}


def a_file(auth: object = None, **entry: object) -> str:
    return yaml.safe_dump({"clouds": {"lab": {"auth": auth or AUTH, **entry}}})


def without(key: str) -> dict[str, str]:
    return {k: v for k, v in AUTH.items() if k != key}


KIND = "v3applicationcredential"
SECRET = {"application_credential_secret": "hunter2"}
APPLICATION = {"auth_url": "http://k/v3", "application_credential_id": "a"}
WHOLE = APPLICATION | SECRET
BY_NAME = {"auth_url": "http://k/v3", "application_credential_name": "ours"} | SECRET


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clouds: [hunter2", "no YAML at line 1"),
        ("hunter2: &a [*a]", "aliases written out"),
        ("", "no mapping 'clouds'"),
        ("clouds: 3", "no mapping 'clouds'"),
        ("clouds: {lab: hunter2}", "cloud 'lab' must be a mapping"),
        ("clouds: {lab: {auth: hunter2}}", "'auth' must be a mapping"),
        (a_file(without("auth_url")), "auth.auth_url is missing"),
        (a_file(without("password")), "auth.password is missing"),
        (a_file(without("username")), "auth.username or auth.user_id is missing"),
        (a_file(without("project_name")), "auth.project_name or auth.project_id is missing"),
        (a_file(AUTH | {"password": 12345}), "auth.password must be a string: put it in quotes"),
        (a_file(AUTH | {"password": None}), "auth.password is missing"),
        (
            a_file(APPLICATION, auth_type="v3applicationcredential"),
            "auth.application_credential_secret is missing",
        ),
        (a_file(WHOLE), "'auth_type: v3applicationcredential' is missing"),
        (a_file(WHOLE | {"project_name": "lab"}, auth_type=KIND), "auth.project_name must go"),
        (a_file(BY_NAME, auth_type=KIND), "the name of a credential is its user's"),
        (a_file(without("user_domain_name"), auth_type="v3password"), "a user_domain_id or"),
        (a_file(auth_type="v3nonesuch"), "unknown 'auth_type'"),
        (a_file(auth_type="v3websso"), "'auth_type' needs a person"),
        (a_file(cert="/etc/operator/tls.crt"), "'cert' is not supported"),
        (a_file(profile="http://evil.invalid/"), "'profile' is not supported"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_key(text: str, said: str) -> None:
    with pytest.raises(CloudConfigInvalid, match=said) as caught:
        open_cloud(text, "lab", installation=InstallationId("here"))

    assert caught.value.reason is Reason.SECRET_INVALID
    assert_no_secret(caught.value)


def assert_no_secret(error: BaseException) -> None:
    """Neither its text nor the errors chained to it, as a traceback would show them."""
    assert "hunter2" not in str(error)
    assert "12345" not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


def test_a_cloud_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(CloudConfigInvalid, match="no cloud 'lob'; there is 'lab'") as caught:
        read_cloud(a_file(), "lob")

    assert caught.value.reason is Reason.CLOUD_NOT_FOUND
