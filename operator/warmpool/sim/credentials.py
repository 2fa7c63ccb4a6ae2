"""Application credentials as Keystone keeps them: of one user, for one project, until revoked.

As Keystone 30 does it: a login with an id that there is not is a 404, all else that is wrong a 401.
A token lasts no longer than the credential that it was had with, and is worth nothing once that is
deleted.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from warmpool.sim.errors import Refused
from warmpool.sim.views import micro

UNAUTHORIZED: Final = "The request you have made requires authentication."


@dataclass(frozen=True, slots=True)
class Credential:
    """One application credential."""

    id: str
    name: str
    user: str
    secret: str
    roles: tuple[str, ...]
    expires: datetime | None = None
    unrestricted: bool = False
    """Whether a token that was had with it may make others, and delete them."""

    def body(self, project: str) -> dict[str, object]:
        """It as Keystone shows it: without its secret."""
        return {
            "id": self.id,
            "name": self.name,
            "description": None,
            "project_id": project,
            "roles": [{"name": role} for role in self.roles],
            "expires_at": micro(self.expires) if self.expires else None,
            "unrestricted": self.unrestricted,
        }


class Credentials:
    """Those of all users of a cloud."""

    def __init__(self) -> None:
        self._held: dict[str, Credential] = {}

    def add(self, made: Credential) -> None:
        """Keep one.

        Raises:
            Refused: 409, its user has one of that name.
        """
        if any(one.name == made.name for one in self.of(made.user)):
            raise Refused(
                409,
                "Conflict occurred attempting to store application_credential - Duplicate entry"
                f" found with name {made.name}.",
            )
        self._held[made.id] = made

    def of(self, user: str) -> list[Credential]:
        return [one for one in self._held.values() if one.user == user]

    def get(self, ident: str) -> Credential:
        """One by its id.

        Raises:
            Refused: 404.
        """
        if ident not in self._held:
            raise Refused(404, f"Could not find Application Credential: {ident}.")
        return self._held[ident]

    def has(self, ident: str) -> bool:
        return ident in self._held

    def delete(self, ident: str) -> None:
        """Revoke one.

        Raises:
            Refused: 404.
        """
        del self._held[self.get(ident).id]

    def identify(self, given: dict[str, Any], user: str | None, now: datetime) -> Credential:
        """The one that a login names, by its id, or by its name and its user's.

        Raises:
            Refused: there is none such, or not with this secret, or not any more.
        """
        found = self._named(given, user)
        if found.secret != given.get("secret"):
            raise Refused(401, UNAUTHORIZED)
        if found.expires is not None and found.expires <= now:
            raise Refused(401, UNAUTHORIZED)
        return found

    def _named(self, given: dict[str, Any], user: str | None) -> Credential:
        if ident := given.get("id"):
            return self.get(ident)
        for one in self.of(user or ""):
            if one.name == given.get("name"):
                return one
        raise Refused(401, UNAUTHORIZED)
