"""What a pool builds from: its cloud, and its template with all names resolved."""

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.pool import ResolvedTemplate
from warmpool.domain.catalogue import Entry, Found, ImageQuery, NoEntry, Resolution
from warmpool.domain.cloud import BuildSpec, Identity
from warmpool.domain.errors import (
    CallForbidden,
    CloudError,
    CloudUnavailable,
    DependencyMissing,
    Forbidden,
    NotFound,
)
from warmpool.domain.facts import Pool, Vm
from warmpool.domain.ids import Ref
from warmpool.domain.pools import Problem
from warmpool.planning.catalogue import MAX_PROJECT, refusal, remembered, roles_counted, withdrawn
from warmpool.planning.revision import revision_resolved, revisions_by_name
from warmpool.ports.catalogue import Catalogue
from warmpool.ports.clock import Clock
from warmpool.ports.cluster import Cluster
from warmpool.reconcile.clouds import Clouds
from warmpool.reconcile.groups import settle_group
from warmpool.reconcile.session import CloudSession, problem_of

RETRY_DEPENDENCY: Final = timedelta(seconds=10)
"""Between looks for something that the template names and that was not there."""

RESOLVE_EVERY: Final = timedelta(minutes=5)
"""After which the names of a template are looked up again: an image may have been replaced."""

FLAVOR_REF: Final = "spec.template.flavorRef.name"

Note = Callable[[Resolution], None]
"""Told what an entry of the catalogue came to, or why it did not."""


class Recipe:
    """One pool's cloud and resolved template; what is wrong with them is remembered."""

    def __init__(
        self, cluster: Cluster, clouds: Clouds, catalogue: Catalogue, note: Note, clock: Clock
    ) -> None:
        self._cluster = cluster
        self._clouds = clouds
        self._catalogue = catalogue
        self._note = note
        self._clock = clock
        self._generation = -1
        """Of the pool when its names were last looked up, whatever came of that."""
        self._session: CloudSession | None = None
        """The one that the template was resolved with."""
        self._found: Found | None = None
        self._spec: BuildSpec | None = None
        self._revision = ""
        self.resolved: ResolvedTemplate | None = None
        """What the catalogue's entry came to last. None: the template names none."""
        self.stale: NoEntry | None = None
        """Why that may not be the newest. None: it is."""
        self.withdrawn = False
        """What the entry came to before counts no more: it is not there, or not permitted."""
        self.problem: Problem | None = None
        self.due: datetime | None = None
        """When to look again."""

    @property
    def latest(self) -> BuildSpec | None:
        """What new VMs are built from, as it was resolved last. None: not yet."""
        return self._spec

    @property
    def group(self) -> str:
        """Id of the server group that new VMs are built in. Empty: none."""
        return self._spec.group if self._spec is not None else ""

    def spec_for(self, vm: Vm) -> BuildSpec | None:
        """What to build a VM from, as it was resolved last; kept while a problem lasts.

        None: the template has changed since the VM was written, so it is to be given up.
        """
        return self._spec if self._revision == vm.revision else None

    def revised(self, pool: Pool) -> Pool:
        """The pool with the revision that its template came to last.

        What an entry of the catalogue comes to is a part of it, so for as long as that is not
        known the pool keeps the revision that it had.
        """
        if pool.spec.template.flavor_ref is None:
            return pool
        return replace(pool, revision=self._revision or pool.status.revision or pool.revision)

    def doubt(self) -> None:
        """Nova called a request wrong: look the names up again at once."""
        self.due = self._clock.now()

    async def prepare(self, pool: Pool) -> CloudSession | None:
        """The session of the pool's credentials, with the template resolved as far as it can be."""
        now = self._clock.now()
        session = await self._clouds.session(pool)
        if isinstance(session, Problem):
            self.problem, self.due = session, now + RETRY_DEPENDENCY
            self._tell(pool, None, None)
            return None
        session.join(pool.ref)
        if session.problem is not None:
            self.problem, self.due = session.problem, now + RETRY_DEPENDENCY
            self._tell(pool, session, None)
            return session
        found, known = self._find(pool), self._found
        is_due = self.due is None or now >= self.due
        is_other = session is not self._session  # these credentials may be another project's
        is_same = _entry(found) == _entry(known)
        self._session, self._found = session, found
        if self._generation != pool.generation or is_due or is_other or not is_same:
            await self._resolve(pool, session, found)
        elif self.problem is None:  # why it may not be the newest changes nothing that is built
            self.stale = found.stale if found is not None else None
        return session

    async def session(self, pool: Pool) -> CloudSession:
        """The session of the pool's credentials as they are now.

        Raises:
            CloudUnavailable: they are of no use.
        """
        session = await self._clouds.session(pool)
        if isinstance(session, Problem):
            raise CloudUnavailable(session.message)
        return session

    def _find(self, pool: Pool) -> Found | None:
        """What the catalogue says of the entry that the template names. None: it names none."""
        ref = pool.spec.template.flavor_ref
        if ref is None:
            return None
        found, last = self._catalogue.find(ref.name), self.resolved or pool.status.resolved
        if last is None or last.name != ref.name or self.withdrawn:
            return found
        return remembered(found, last)

    async def _resolve(self, pool: Pool, session: CloudSession, found: Found | None) -> None:
        now, zones = self._clock.now(), tuple(pool.spec.availability_zones)
        self._generation = pool.generation
        try:
            entry, who = await self._permitted(found, session)
            entry = self._holding(pool, entry)
            spec = await session.cloud.resolve(pool.spec.template, zones, entry)
            group = await settle_group(session.cloud, pool)
            spec = replace(spec, user_data=await self._user_data(pool), group=group)
        except DependencyMissing as error:
            self.problem = Problem(error.reason, str(error), error.field)
        except CallForbidden as error:
            self.problem = _not_allowed(error)
        except CloudError as error:
            self.problem = problem_of(error)
        else:
            self._take(pool, spec, found, who)
            self._tell(pool, session, who)
            self.problem, self.due = None, now + RESOLVE_EVERY
            return
        if withdrawn(self.problem.reason, found):
            self.resolved, self.withdrawn = None, True
        self._tell(pool, session, None)
        self.due = now + RETRY_DEPENDENCY

    async def _permitted(
        self, found: Found | None, session: CloudSession
    ) -> tuple[Entry | None, Identity | None]:
        """The entry that the template names, if these credentials may use it, and whose they are.

        Raises:
            DependencyMissing: there is none, or they may not.
        """
        if found is None:
            return None, None
        if isinstance(found.entry, NoEntry):
            raise DependencyMissing(
                found.entry.message, reason=found.entry.reason, field=FLAVOR_REF
            )
        who = await session.cloud.identity()
        if why := refusal(found.entry, who):
            raise DependencyMissing(why, reason=Reason.PROJECT_NOT_PERMITTED, field=FLAVOR_REF)
        return found.entry, who

    def _holding(self, pool: Pool, entry: Entry | None) -> Entry | None:
        """An entry that asks for the newest image, with the one that is in force."""
        last = self.resolved or pool.status.resolved
        if entry is None or last is None or not isinstance(entry.image, ImageQuery):
            return entry
        return replace(entry, image=replace(entry.image, held=last.image_id))

    def _take(self, pool: Pool, spec: BuildSpec, found: Found | None, who: Identity | None) -> None:
        """This is what is built from now on."""
        before, self._spec, self.withdrawn = self._spec, spec, False
        self.stale = found.stale if found is not None else None
        if found is None or not isinstance(found.entry, Entry):
            self._revision, self.resolved = pool.revision, None
            return
        content = revision_resolved(pool.spec.template, spec)
        if before != spec or not self._revision:  # else it was moved from names that mean the same
            self._revision = self._kept(pool, found.entry, spec, content) or content
        fresh = ResolvedTemplate(
            content=content,
            name=found.entry.name,
            flavor_id=spec.flavor_id,
            image_id=spec.image_id,
            metadata=dict(found.entry.metadata),
            project_id=who.project_id[:MAX_PROJECT] if who is not None else "",
            roles=roles_counted(found.entry, who) if who is not None else [],
            time=self._clock.now().replace(microsecond=0),
        )
        last = self.resolved or pool.status.resolved
        same = last is not None and fresh.model_copy(update={"time": last.time}) == last
        self.resolved = last if same else fresh

    def _kept(self, pool: Pool, entry: Entry, spec: BuildSpec, content: str) -> str:
        """The revision that VMs of this content have already. Empty: none that is known."""
        last, revision = self.resolved or pool.status.resolved, pool.status.revision
        if last is not None:
            return (self._revision or revision) if last.content == content else ""
        by_name = revisions_by_name(pool.spec.template, entry, spec)
        return revision if revision in by_name else ""

    def _tell(self, pool: Pool, session: CloudSession | None, who: Identity | None) -> None:
        """Note what the entry came to; without `who`, that it did not."""
        ref, resolved = pool.spec.template.flavor_ref, self.resolved
        if ref is None:
            return
        one = Resolution(ref.name, pool.ref, session.cloud.region if session is not None else "")
        if who is not None and resolved is not None:
            one = replace(
                one,
                project=who.project_id,
                flavor_id=resolved.flavor_id,
                image_id=resolved.image_id,
                time=resolved.time,
            )
        elif self.problem is not None:
            one = replace(one, message=self.problem.message)
        self._note(one)

    async def _user_data(self, pool: Pool) -> str | None:
        """The template's user data in base64, from its Secret if it names one.

        Raises:
            DependencyMissing: that is not there, has no such key, or may not be read.
            ClusterError: the API server does not say.
        """
        template = pool.spec.template
        if template.user_data_secret_ref is None:
            return template.user_data
        where = template.user_data_secret_ref
        missing = partial(DependencyMissing, field="spec.template.userDataSecretRef")
        try:
            data = await self._cluster.secret(Ref(pool.ref.namespace, where.name))
        except NotFound as error:
            raise missing(str(error), reason=Reason.SECRET_NOT_FOUND) from error
        except Forbidden as error:
            text = f"{error}: let the operator's ServiceAccount get it"
            raise missing(text, reason=Reason.SECRET_UNREADABLE) from error
        if where.key not in data:
            text = f"Secret {where.name!r} has no key {where.key!r}: add it"
            raise missing(text, reason=Reason.SECRET_NOT_FOUND)
        return base64.b64encode(data[where.key]).decode("ascii")


def _entry(found: Found | None) -> Entry | NoEntry | None:
    return found.entry if found is not None else None


def _not_allowed(error: CallForbidden) -> Problem:
    """A look-up that was refused: builds wait for it, and nothing else that the role may do."""
    remedy = "have the role that the credentials carry look this up, or correct them"
    return Problem(error.reason, f"{error}: {remedy}; until then nothing is built", "spec.template")
