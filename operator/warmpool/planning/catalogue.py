"""Entries of the catalogue: read, permitted, told of. Pure."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Final

from warmpool.api.names import FlavorCondition, Reason
from warmpool.api.v1alpha1.flavor import ResolvedFor, VMFlavorSpec, VMFlavorStatus
from warmpool.api.v1alpha1.pool import ResolvedTemplate
from warmpool.domain.catalogue import Allowed, Entry, Found, ImageQuery, NoEntry, Resolution
from warmpool.domain.cloud import Identity
from warmpool.domain.ids import Ref
from warmpool.planning.condition import condition

MAX_MESSAGE: Final = 500
MAX_NAME: Final = 255
MAX_PROJECT: Final = 64
"""Characters that the status takes. Tenants' clouds say what stands there, and may say anything."""

CANNOT_SAY: Final = frozenset({Reason.CATALOGUE_UNAVAILABLE, Reason.ENTRY_MALFORMED})
"""Why there is no entry, though there may well be one."""

WITHDRAWN: Final = frozenset({Reason.ENTRY_NOT_FOUND, Reason.PROJECT_NOT_PERMITTED})
"""What an entry came to before counts no more, whatever becomes of the catalogue."""

MAX_ROLES: Final = 20
"""Roles that the status takes. Those left out count no more: that permits less, never more."""

MAX_ROWS: Final = 500
"""Pools that the status lists."""


def entry_of(name: str, spec: VMFlavorSpec) -> Entry:
    """The entry that a spec describes, wherever that came from."""
    newest = spec.image.newest
    image: str | ImageQuery = spec.image.name or ""
    if newest is not None:
        image = ImageQuery(
            tuple(sorted(newest.properties.items())), tuple(sorted(set(newest.tags)))
        )
    return Entry(
        name=name,
        flavor=spec.flavor,
        image=image,
        metadata=tuple(sorted(spec.metadata.items())),
        projects=tuple(
            Allowed(one.project_id or "", one.project or "", one.domain or "", frozenset(one.roles))
            for one in spec.projects
        ),
    )


def entry_resolved(resolved: ResolvedTemplate) -> Entry:
    """An entry by what it came to: the same for as long as Nova and Glance have that.

    It is for the project that it came to this for, with the roles that counted, and for no other.
    """
    return Entry(
        name=resolved.name,
        flavor=resolved.flavor_id,
        image=resolved.image_id,
        metadata=tuple(sorted(resolved.metadata.items())),
        projects=(Allowed(resolved.project_id, roles=frozenset(resolved.roles)),)
        if resolved.project_id
        else (),
    )


def checked(name: str, spec: VMFlavorSpec) -> Entry | str:
    """The entry that a spec describes, held against the rules that a VMFlavor's CRD has.

    Where entries are kept elsewhere, nobody has refused what breaks them: the answer says what.
    """
    newest = spec.image.newest
    if any(key.startswith("warmpool.dev:") for key in spec.metadata):
        return "spec.metadata: leave warmpool.dev: alone, with which the operator marks its servers"
    if (spec.image.name is None) == (newest is None):
        return "spec.image: an image is told by name or as the newest of some: keep one of them"
    if newest is not None and not newest.properties and not newest.tags:
        return "spec.image.newest: it must say of which images: name properties or tags"
    for one in spec.projects:
        if (one.project_id is None) == (one.project is None):
            return "spec.projects: a project is told by projectID or by project: keep one of them"
        if (one.project is None) != (one.domain is None):
            return "spec.projects: the name of a project goes with its domain: say both"
    return entry_of(name, spec)


def remembered(found: Found, last: ResolvedTemplate) -> Found:
    """What an entry came to last, while the catalogue cannot say.

    That it has no such entry is an answer, and stands. Whose project it was has to be known.
    """
    why = found.entry
    if last.project_id and isinstance(why, NoEntry) and why.reason in CANNOT_SAY:
        return Found(entry_resolved(last), why, remembered=True)
    return found


def withdrawn(reason: Reason, found: Found | None) -> bool:
    """Whether what an entry came to before counts no more.

    What is only remembered refuses these credentials: others may still be permitted by it.
    """
    return reason in WITHDRAWN and not (found is not None and found.remembered)


def refusal(entry: Entry, who: Identity) -> str:
    """Why these credentials may not use an entry; empty: they may."""
    if not entry.projects:
        return ""
    theirs = [one for one in entry.projects if _is_project(one, who)]
    if not theirs:
        return (
            f"project {who.project!r} ({who.project_id}) may not use {entry.name!r}:"
            " its projects do not name it: add it there, or name another entry"
        )
    if any(not one.roles or one.roles & who.roles for one in theirs):
        return ""
    wanted = sorted({role for one in theirs for role in one.roles})
    has = ", ".join(sorted(who.roles)) or "none"
    return (
        f"project {who.project!r} may use {entry.name!r} with one of the roles"
        f" {', '.join(wanted)}; these credentials have {has}"
    )


def roles_counted(entry: Entry, who: Identity) -> list[str]:
    """The roles by which these credentials may use an entry, sorted. Empty: any will do."""
    theirs = [one.roles for one in entry.projects if _is_project(one, who)]
    if not all(theirs):
        return []
    return sorted(frozenset[str]().union(*theirs) & who.roles)[:MAX_ROLES]


def _is_project(one: Allowed, who: Identity) -> bool:
    """An id is never held against a name: whoever names a project may call it by another's id."""
    if one.project_id:
        return one.project_id == who.project_id
    in_domain = bool(one.domain) and one.domain in (who.domain_id, who.domain)
    return in_domain and one.project == who.project


def flavor_status(
    before: VMFlavorStatus,
    resolutions: Iterable[Resolution],
    *,
    silent: Collection[Ref] = (),
    generation: int,
    now: datetime,
) -> VMFlavorStatus:
    """The status of a VMFlavor. A time stays for as long as the ids do.

    Of pools that are `silent`, since they have not looked yet, stands what stood there.
    """
    old = {one.pool: one for one in before.resolved}
    moment = now.replace(microsecond=0)
    kept = [old[str(ref)] for ref in silent if str(ref) in old]
    rows = sorted(
        [*(_row(one, old, moment) for one in resolutions), *kept], key=lambda row: row.pool
    )
    shown = rows[:MAX_ROWS]
    failed = [row for row in rows if row.message]
    if not rows:
        holds, reason, text = None, Reason.NOT_USED, "no pool uses it"
    elif failed:
        first = f"{failed[0].pool}: {failed[0].message}"
        more = f"; and {len(failed) - 1} pools more" if len(failed) > 1 else ""
        holds, reason, text = False, Reason.UNRESOLVED, first + more
    else:
        holds, reason, text = True, Reason.RESOLVED, f"it means something to {len(rows)} pools"
    if len(shown) < len(rows):
        text = f"{text}; the first {len(shown)} of {len(rows)} pools are listed"
    said = condition(
        FlavorCondition.RESOLVED,
        holds=holds,
        reason=reason,
        message=text,
        now=moment,
        generation=generation,
        before=before.conditions,
    )
    return VMFlavorStatus(
        observed_generation=generation, state=reason.value, resolved=shown, conditions=[said]
    )


def _row(one: Resolution, old: Mapping[str, ResolvedFor], now: datetime) -> ResolvedFor:
    pool = f"{one.pool.namespace}/{one.pool.name}"
    known = old.get(pool)
    row = ResolvedFor(
        pool=pool,
        region=one.region[:MAX_NAME],
        project_id=one.project[:MAX_PROJECT],
        flavor_id=one.flavor_id,
        image_id=one.image_id,
        time=one.time or now,
        message=one.message[:MAX_MESSAGE],
    )
    if known is not None and row.message and not row.flavor_id:
        # What it meant before is still what the pool builds from.
        ids = {"flavor_id": known.flavor_id, "image_id": known.image_id, "time": known.time}
        return row.model_copy(update=ids)
    same = known is not None and row.model_copy(update={"time": known.time}) == known
    return known if known is not None and same else row
