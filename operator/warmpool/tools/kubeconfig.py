"""The files a local control plane is started with and reached by. Pure, but for writing them."""

import base64
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

LOCAL_CONTEXT = "warmpool-local"
"""The one context that is ours; tests write to no other but those of kind."""

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P256_HEAD = bytes.fromhex("30310201010420")
_P256_TAIL = bytes.fromhex("a00a06082a8648ce3d030107")


class KubeconfigError(Exception):
    """A kubeconfig that cannot be read, or that leads somewhere tests must not write."""


def render(*, server: str, authority: bytes, user: str, token: str) -> str:
    """One context, `LOCAL_CONTEXT`; the server is verified by `authority`, in PEM."""
    cluster = {
        "server": server,
        "certificate-authority-data": base64.b64encode(authority).decode(),
    }
    context = {"cluster": LOCAL_CONTEXT, "user": user, "namespace": "default"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": LOCAL_CONTEXT, "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": LOCAL_CONTEXT, "context": context}],
        "current-context": LOCAL_CONTEXT,
    }
    return yaml.safe_dump(document, sort_keys=False)


def for_user(kubeconfig: str, *, user: str, token: str) -> str:
    """The same cluster and context, seen by another user."""
    document = _parse(kubeconfig)
    name = document["current-context"]
    context = next(entry["context"] for entry in document["contexts"] if entry["name"] == name)
    context["user"] = user
    document["users"] = [{"name": user, "user": {"token": token}}]
    document["contexts"] = [{"name": name, "context": context}]
    return yaml.safe_dump(document, sort_keys=False)


def assert_test_context(kubeconfig: Path) -> str:
    """The current context's name.

    Raises:
        KubeconfigError: it is neither ours nor kind's, so tests must not write to it.
    """
    try:
        context = str(_parse(kubeconfig.read_text())["current-context"])
    except (OSError, KeyError) as error:
        raise KubeconfigError(f"{kubeconfig} names no current context") from error
    if context != LOCAL_CONTEXT and not context.startswith("kind-"):
        raise KubeconfigError(
            f"{kubeconfig} leads to the context {context!r}; tests write only to"
            f" {LOCAL_CONTEXT!r} and to those called kind-*"
        )
    return context


def token_file(tokens: Mapping[str, str], groups: Mapping[str, Sequence[str]]) -> str:
    """The lines of --token-auth-file: token, user, uid and, quoted, the user's groups."""
    return "".join(
        f'{token},{user},{user},"{",".join(groups.get(user, ()))}"\n'
        for user, token in tokens.items()
    )


def tokens_in(path: Path) -> dict[str, str]:
    """The token of every user in such a file; none if there is no file."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {user: token for token, user, *_ in (line.split(",") for line in lines)}


def signing_key(secret: int | None = None) -> str:
    """A PEM private key on P-256 for ServiceAccount tokens, a new one unless its number is given.

    An elliptic curve's private key is nothing but a number, and the public key may be left out of
    the file (RFC 5915): that spares this module a cryptography library and a call of openssl.
    """
    number = secret or secrets.randbelow(_P256_ORDER - 1) + 1
    body = base64.b64encode(_P256_HEAD + number.to_bytes(32, "big") + _P256_TAIL).decode()
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN EC PRIVATE KEY-----", *lines, "-----END EC PRIVATE KEY-----", ""])


def write_private(path: Path, text: str) -> None:
    """Write what only we may read, in one step: a reader sees the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.replace(path)


def _parse(kubeconfig: str) -> dict[str, Any]:
    document = yaml.safe_load(kubeconfig)
    if not isinstance(document, dict):
        raise KubeconfigError("a kubeconfig is a YAML mapping")
    return document
