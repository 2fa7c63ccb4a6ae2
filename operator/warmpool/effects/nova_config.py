"""One entry of a clouds.yaml, read and held against what we need. Pure: reads no file.

Nothing here repeats a value of the entry: most of them are secrets.
"""

from collections.abc import Mapping
from typing import Final

from warmpool.api.names import Reason
from warmpool.domain.errors import CloudConfigInvalid
from warmpool.effects.plain_yaml import NotPlainYamlError, parse

FILE_KEYS: Final = ("cert", "key")
"""Client certificates are files of the operator's own pod: a tenant's Secret must not use them."""

REMOTE_KEYS: Final = ("profile", "cloud")
"""A vendor profile is read from a file, or fetched from any URL it names."""

_PASSWORD: Final = (("username", "user_id"), ("password",), ("project_name", "project_id"))
_APPLICATION: Final = (
    ("application_credential_id", "application_credential_name"),
    ("application_credential_secret",),
)
APPLICATION_CREDENTIAL: Final = "v3applicationcredential"
SCOPES: Final = (
    "project_name",
    "project_id",
    "tenant_name",
    "tenant_id",
    "domain_name",
    "domain_id",
    "system_scope",
)
"""Keys below `auth` that must not stand with an application credential: Keystone refuses a login
that asks for another scope than its own, with the 401 of a wrong secret."""

NEEDED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "password": _PASSWORD,
    "v3password": _PASSWORD,
    APPLICATION_CREDENTIAL: _APPLICATION,
}
"""Keys below `auth` that each kind of login needs, one of each group, besides `auth_url`. What is
not here keystoneauth checks by itself."""

INTERACTIVE: Final = frozenset({"v3websso", "v3oidcdeviceauthz"})
"""Kinds of login that wait for a person: they open a port or a browser, and hold a thread."""

WITHOUT_URL: Final = frozenset({"none", "noauth", "admin_token"})
"""Kinds of login that ask no Keystone."""


def read_cloud(clouds_yaml: str, cloud: str) -> dict[str, object]:
    """The entry of a cloud, checked.

    Raises:
        CloudConfigInvalid: with the cloud and the key that is wrong.
    """
    entry = _entry(_parse(clouds_yaml), cloud)
    for key in (*FILE_KEYS, *REMOTE_KEYS):
        if key in entry:
            raise CloudConfigInvalid(
                f"clouds.yaml: cloud {cloud!r}: {key!r} is not supported: "
                "everything must stand in the entry itself"
            )
    kind = entry.get("auth_type", "password")
    auth = entry.get("auth", {})
    if not isinstance(kind, str) or not isinstance(auth, dict):
        raise CloudConfigInvalid(f"clouds.yaml: cloud {cloud!r}: 'auth' must be a mapping")
    if kind in INTERACTIVE:
        raise CloudConfigInvalid(f"clouds.yaml: cloud {cloud!r}: 'auth_type' needs a person")
    _check_auth(cloud, kind, auth)
    return entry


def secrets_of(entry: Mapping[str, object]) -> tuple[str, ...]:
    """The values below `auth`, the longest first, to be kept out of foreign texts."""
    auth = entry.get("auth")
    values = auth.values() if isinstance(auth, dict) else ()
    return tuple(sorted((v for v in values if isinstance(v, str)), key=len, reverse=True))


def _parse(clouds_yaml: str) -> object:
    try:
        parsed: object = parse(clouds_yaml)
    except NotPlainYamlError as error:
        raise CloudConfigInvalid(f"clouds.yaml {error}") from None
    return parsed


def _entry(parsed: object, cloud: str) -> dict[str, object]:
    clouds = parsed.get("clouds") if isinstance(parsed, dict) else None
    if not isinstance(clouds, dict):
        raise CloudConfigInvalid("clouds.yaml has no mapping 'clouds'")
    entry = clouds.get(cloud)
    if entry is None:
        there = ", ".join(sorted(repr(str(name)) for name in clouds)[:10]) or "nothing"
        raise CloudConfigInvalid(
            f"clouds.yaml has no cloud {cloud!r}; there is {there}", reason=Reason.CLOUD_NOT_FOUND
        )
    if not isinstance(entry, dict):
        raise CloudConfigInvalid(f"clouds.yaml: cloud {cloud!r} must be a mapping")
    return dict(entry)


def _check_auth(cloud: str, kind: str, auth: Mapping[str, object]) -> None:
    """Numbers are refused too: YAML reads `0123` as 83, and Keystone's refusal would quote it."""
    for key, value in auth.items():
        if value is not None and not isinstance(value, str | bool | list):
            raise CloudConfigInvalid(
                f"clouds.yaml: cloud {cloud!r}: auth.{key} must be a string: put it in quotes"
            )
    if why := _misfit(kind, auth):
        raise CloudConfigInvalid(f"clouds.yaml: cloud {cloud!r}: {why}")
    needed = () if kind in WITHOUT_URL else (("auth_url",), *NEEDED.get(kind, ()))
    for group in needed:
        if not any(auth.get(key) for key in group):
            raise CloudConfigInvalid(
                f"clouds.yaml: cloud {cloud!r}: auth.{' or auth.'.join(group)} is missing"
            )


def _misfit(kind: str, auth: Mapping[str, object]) -> str:
    """What is wrong with an application credential. Empty: nothing, or there is none."""
    if kind != APPLICATION_CREDENTIAL:
        is_one = auth.get("application_credential_secret") and not auth.get("password")
        return f"'auth_type: {APPLICATION_CREDENTIAL}' is missing" if is_one else ""
    for key in SCOPES:
        if auth.get(key):
            return f"auth.{key} must go: an application credential is for a project of its own"
    by_name = not auth.get("application_credential_id") and auth.get("application_credential_name")
    if by_name and not (auth.get("username") or auth.get("user_id")):
        return "auth.username or auth.user_id is missing: the name of a credential is its user's"
    return ""
