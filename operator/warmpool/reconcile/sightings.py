"""The servers of this installation as listings and answers show them, one by one.

A listing is true for the moment at which it began. What was POSTed since is there although it does
not show it; what was POSTed before and never shows may never come. A complete one is read over
minutes, and what others have told of a server meanwhile is newer than what it shows of it.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from warmpool.domain.cloud import Listing, Server, ServerState
from warmpool.domain.ids import ServerId, VmUid

UNSEEN_FOR: Final = 30.0
"""Seconds for which a server may be missing in listings that was just POSTed. Longer than two wide
ones are apart, so that a clock of the cloud's that is behind does not count against it."""


class Sightings:
    """Of one cloud. Moments are monotonic seconds."""

    def __init__(self) -> None:
        self._servers: dict[VmUid, Server] = {}
        self._strays: dict[ServerId, Server] = {}
        self._posted: dict[VmUid, float] = {}
        self._accepted: dict[VmUid, ServerId] = {}
        self._unseen: dict[VmUid, float] = {}
        """Servers that were POSTed, and when, and that no listing has shown yet."""
        self._news: set[ServerId] = set()
        """What was told of since the last complete listing was asked for."""

    def servers(self) -> Mapping[VmUid, Server]:
        """The server of each owner."""
        return self._servers

    def strays(self) -> list[Server]:
        """Servers of ours beyond the one that each WarmVM has."""
        return list(self._strays.values())

    def server(self, owner: VmUid, known: ServerId | None = None) -> Server | None:
        """The server of a WarmVM: of several, the one that it knows to be its own."""
        held = self._servers.get(owner)
        if known is not None and held is not None and held.id != known:
            return self._strays.get(known, held)
        return held

    def accepted(self, owner: VmUid) -> ServerId | None:
        """The server that a POST in this term was answered with, whatever the listings say."""
        return self._accepted.get(owner)

    def posted(
        self, owner: VmUid, server: ServerId, name: str, when: tuple[float, datetime]
    ) -> None:
        """A server was just POSTed: a moment, and the time by the cloud's clock."""
        moment, now = when
        self._posted[owner] = self._unseen[owner] = moment
        self._accepted[owner] = server
        if owner not in self._servers:
            self._servers[owner] = Server(
                id=server,
                name=name,
                state=ServerState.BUILDING,
                busy=True,
                owner=owner,
                status="BUILD/scheduling",
                created=now,
            )

    def found(self, owner: VmUid, server: Server) -> None:
        """A server was seen outside a listing."""
        self._news.add(server.id)
        self._unseen.pop(owner, None)
        self._servers[owner] = server

    def gone(self, owner: VmUid) -> None:
        """Nova says 404 for the server of this owner."""
        held = self._servers.pop(owner, None)
        if held is not None:
            self._news.add(held.id)
        self._posted.pop(owner, None)
        self._unseen.pop(owner, None)
        self._accepted.pop(owner, None)

    def forget(self, server: Server) -> None:
        """There is no such server of ours any more."""
        self._news.add(server.id)
        self._strays.pop(server.id, None)
        held = self._servers.get(server.owner) if server.owner is not None else None
        if held is not None and held.id == server.id and server.owner is not None:
            self.gone(server.owner)

    def known(self, before: float) -> list[VmUid]:
        """Whose servers a complete listing should show that began at that moment."""
        return [uid for uid in self._servers if self._posted.get(uid, float("-inf")) < before]

    def build_time(self, server: Server, now: float) -> float | None:
        """Seconds that a build took, if this listing is the first to show it ACTIVE."""
        if server.owner is None or server.state is not ServerState.ACTIVE:
            return None
        held, posted_at = self._servers.get(server.owner), self._posted.get(server.owner)
        if held is None or held.state is not ServerState.BUILDING or posted_at is None:
            return None
        return max(0.0, now - posted_at)

    def all_asked_for(self) -> None:
        """A complete listing begins."""
        self._news = set()

    def brought_up(self, listing: Listing) -> Listing:
        """The last complete listing that was asked for, with what was told since it began."""
        held = (*self._servers.values(), *self._strays.values())
        newer = [server for server in held if server.id in self._news]
        older = [server for server in listing.servers if server.id not in self._news]
        return replace(listing, servers=(*older, *newer))

    def take_in(self, listing: Listing, began: float) -> list[VmUid]:
        """Merge a listing that began at that moment; the owners whose servers changed."""
        if listing.complete:
            return self._replace_all(listing, began)
        changed: list[VmUid] = []
        nameless = any(server.owner is None for server in listing.servers)
        by_id = {s.id: owner for owner, s in self._servers.items()} if nameless else {}
        for server in listing.servers:
            self._news.add(server.id)
            owner = server.owner or by_id.get(server.id)
            if owner is None:
                continue
            self._unseen.pop(owner, None)
            held = self._servers.get(owner)
            if held is not None and held.id != server.id:
                self._stray(server)
            elif server.state is ServerState.DELETED:
                self.gone(owner)
                changed.append(owner)
            elif held != server:
                self._servers[owner] = replace(server, owner=owner)
                changed.append(owner)
        return changed + self._never_came(began)

    def _never_came(self, now: float) -> list[VmUid]:
        """Servers that were accepted and that no listing shows: there may never be one."""
        lost = [owner for owner, at in self._unseen.items() if now - at > UNSEEN_FOR]
        for owner in lost:
            del self._unseen[owner]
            self._servers.pop(owner, None)
        return lost

    def _stray(self, server: Server) -> None:
        if server.state is ServerState.DELETED:
            self._strays.pop(server.id, None)
        else:
            self._strays[server.id] = server

    def _replace_all(self, listing: Listing, began: float) -> list[VmUid]:
        fresh: dict[VmUid, Server] = {}
        self._strays = {}
        self._unseen = {owner: at for owner, at in self._unseen.items() if at >= began}
        for server in sorted(listing.servers, key=lambda s: (s.created or listing.taken_at, s.id)):
            if server.owner is None:
                continue
            held = self._servers.get(server.owner)
            first = fresh.setdefault(server.owner, server)
            if first is not server:
                ours = server if held is not None and held.id == server.id else first
                other = first if ours is server else server
                fresh[server.owner] = ours
                self._strays[other.id] = other
        for owner, posted_at in list(self._posted.items()):
            if posted_at >= began and owner in self._servers:
                fresh.setdefault(owner, self._servers[owner])
            elif owner not in fresh:
                del self._posted[owner]
        before, self._servers = self._servers, fresh
        owners = before.keys() | fresh.keys()
        return [owner for owner in owners if before.get(owner) != fresh.get(owner)]
