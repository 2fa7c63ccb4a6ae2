"""Entries of the catalogue: what they say, who may use them, and what becomes of malformed ones."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from builders import NOW, POOL, a_pool
from warmpool.api.names import Reason
from warmpool.api.v1alpha1 import VMFlavor
from warmpool.api.v1alpha1.flavor import VMFlavorSpec, VMFlavorStatus
from warmpool.api.v1alpha1.pool import ResolvedTemplate, Template, WarmPoolStatus
from warmpool.cli.adopt import as_it_builds
from warmpool.domain.catalogue import Allowed, Entry, Found, ImageQuery, NoEntry, Resolution
from warmpool.domain.cloud import BuildSpec, Identity, NetworkChoice
from warmpool.domain.ids import Ref
from warmpool.planning.catalogue import (
    checked,
    entry_of,
    entry_resolved,
    flavor_status,
    refusal,
    remembered,
    roles_counted,
    withdrawn,
)
from warmpool.planning.revision import revision_of, revision_resolved, revisions_by_name
from warmpool.ports.cluster import Snapshot
from warmpool.reconcile.flavors import Flavors

WHO = Identity("p-1", "search", "d-1", "Default", frozenset({"member", "reader"}))


def a_body(name: str = "g2", version: int = 1, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": {"flavor": "m1.large", "image": {"name": "debian-13"}} | spec,
    }


# -- what an entry says -----------------------------------------------------------------------


def test_an_entry_says_what_its_spec_says() -> None:
    spec = VMFlavor.model_validate(
        a_body(
            image={"newest": {"properties": {"b": "2", "a": "1"}, "tags": ["y", "x"]}},
            metadata={"k": "v"},
            projects=[{"projectID": "p-1", "roles": ["member"]}],
        )
    ).spec
    assert entry_of("g2", spec) == Entry(
        "g2",
        "m1.large",
        ImageQuery((("a", "1"), ("b", "2")), ("x", "y")),
        (("k", "v"),),
        (Allowed("p-1", roles=frozenset({"member"})),),
    )


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param({"metadata": {"warmpool.dev:x": ""}}, "spec.metadata: leave", id="mark"),
        pytest.param({"image": {}}, "keep one of them", id="no-image"),
        pytest.param({"image": {"newest": {}}}, "of which images", id="any-image"),
        pytest.param({"projects": [{}]}, "by projectID or by project", id="nobody"),
        pytest.param({"projects": [{"project": "a"}]}, "goes with its domain", id="any-domain"),
    ],
)
def test_rules_that_the_api_server_has_hold_elsewhere_too(spec: dict[str, Any], says: str) -> None:
    wrong = checked("g2", VMFlavor.model_validate(a_body(**spec)).spec)
    assert isinstance(wrong, str)
    assert says in wrong


def test_what_breaks_no_rule_is_an_entry() -> None:
    newest = {"newest": {"tags": ["stable"]}}
    projects = [{"project": "search", "domain": "Default"}, {"projectID": "p-1"}]
    spec = VMFlavor.model_validate(a_body(image=newest, projects=projects)).spec
    assert checked("g2", spec) == entry_of("g2", spec)


# -- who may use it ---------------------------------------------------------------------------


def named(project: str, domain: str, *roles: str) -> Allowed:
    return Allowed("", project, domain, frozenset(roles))


@pytest.mark.parametrize(
    "allowed",
    [
        pytest.param((), id="anybody"),
        pytest.param((Allowed("p-1"),), id="id"),
        pytest.param((Allowed("other"), named("search", "Default")), id="name"),
        pytest.param((named("search", "Default"),), id="domain"),
        pytest.param((named("search", "d-1"),), id="domain-id"),
        pytest.param((Allowed("p-1", roles=frozenset({"admin", "member"})),), id="role"),
        pytest.param((named("search", "Default", "admin"), Allowed("p-1")), id="said-twice"),
    ],
)
def test_a_project_that_is_named_may(allowed: tuple[Allowed, ...]) -> None:
    assert refusal(Entry("g2", "f", "i", projects=allowed), WHO) == ""


@pytest.mark.parametrize(
    ("allowed", "says"),
    [
        pytest.param(Allowed("other"), "its projects do not name it", id="other"),
        pytest.param(named("search", "elsewhere"), "do not name it", id="other-domain"),
        pytest.param(named("search", ""), "do not name it", id="no-domain"),
        pytest.param(Allowed("search"), "do not name it", id="named-as-another's-id"),
        pytest.param(named("p-1", "Default"), "do not name it", id="called-as-the-id"),
        pytest.param(
            named("search", "Default", "admin"),
            "with one of the roles admin; these credentials have member, reader",
            id="role",
        ),
    ],
)
def test_others_are_refused_and_told_why(allowed: Allowed, says: str) -> None:
    told = refusal(Entry("g2", "f", "i", projects=(allowed,)), WHO)
    assert says in told
    assert "'g2'" in told


# -- revisions --------------------------------------------------------------------------------


def a_spec(image: str = "i-1", **metadata: str) -> BuildSpec:
    return BuildSpec("f-1", image, NetworkChoice.AUTO, metadata=tuple(sorted(metadata.items())))


def by_ref(name: str = "g2", **fields: Any) -> Template:
    return Template.model_validate({"flavorRef": {"name": name}} | fields)


def test_where_an_entry_is_kept_and_what_it_is_called_changes_no_revision() -> None:
    assert revision_resolved(by_ref("g2"), a_spec()) == revision_resolved(by_ref("g3"), a_spec())


@pytest.mark.parametrize(
    ("flavor", "image", "same"),
    [
        ("m1.large", "debian-13", True),
        ("f-1", "i-1", True),
        ("m1.large", "i-1", True),
        ("m1.large", "debian-12", False),
    ],
)
def test_revisions_by_name_are_those_of_templates_that_say_the_same(
    flavor: str, image: str, same: bool
) -> None:
    entry = Entry("g2", "m1.large", "debian-13", (("tier", "gold"),))
    by_name = revisions_by_name(by_ref(keyPair="ops"), entry, a_spec(tier="gold"))
    said = {"flavor": flavor, "image": image, "metadata": {"tier": "gold"}, "keyPair": "ops"}
    assert (revision_of(Template.model_validate(said)) in by_name) == same


def test_what_an_entry_comes_to_is_in_the_revision() -> None:
    revisions = {
        revision_resolved(by_ref(), a_spec()),
        revision_resolved(by_ref(), a_spec("i-2")),
        revision_resolved(by_ref(), a_spec(tier="gold")),
        revision_resolved(by_ref(keyPair="ops"), a_spec()),
        revision_of(by_ref()),
    }
    assert len(revisions) == 5


RESOLVED = ResolvedTemplate(
    name="g2", flavor_id="f-1", image_id="i-1", metadata={"tier": "gold"}, time=NOW
)


def test_servers_are_adopted_by_what_the_pool_builds_now() -> None:
    """Its revision is not that of the template, and flavor and image stand in no template."""
    status = WarmPoolStatus(revision="now", resolved=RESOLVED)
    pool, entry = as_it_builds(a_pool(template={"flavorRef": {"name": "g2"}}, status=status))
    assert pool.revision == "now"
    assert entry == Entry("g2", "f-1", "i-1", (("tier", "gold"),))


@pytest.mark.parametrize("known", [None, RESOLVED.model_copy(update={"name": "former"})])
def test_nothing_is_adopted_before_the_entry_was_looked_up(known: ResolvedTemplate | None) -> None:
    pool = a_pool(template={"flavorRef": {"name": "g2"}}, status=WarmPoolStatus(resolved=known))
    with pytest.raises(ValueError, match="has not resolved 'g2' yet"):
        as_it_builds(pool)


# -- while the catalogue cannot say -----------------------------------------------------------


@pytest.mark.parametrize("reason", [Reason.CATALOGUE_UNAVAILABLE, Reason.ENTRY_MALFORMED])
def test_what_cannot_be_said_is_remembered_for_the_project_that_was_permitted(
    reason: Reason,
) -> None:
    why = NoEntry(reason, "away")
    last = RESOLVED.model_copy(update={"project_id": "p-1"})
    found = remembered(Found(why), last)
    assert found.stale == why
    assert isinstance(found.entry, Entry)
    assert refusal(found.entry, WHO) == ""
    assert refusal(found.entry, replace(WHO, project_id="p-2")) != ""


@pytest.mark.parametrize(
    "found",
    [Found(NoEntry(Reason.ENTRY_NOT_FOUND, "")), Found(Entry("g2", "f", "i"))],
    ids=["deleted", "there"],
)
def test_an_answer_stands(found: Found) -> None:
    assert remembered(found, RESOLVED) is found


# -- what is remembered of an entry -----------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "roles"),
    [
        pytest.param((), [], id="anybody"),
        pytest.param((Allowed(project_id="p-1"),), [], id="any-role"),
        pytest.param(
            (Allowed(project_id="p-1", roles=frozenset({"member", "admin"})),), ["member"], id="one"
        ),
        pytest.param(
            (Allowed(project_id="p-1", roles=frozenset({"member"})), Allowed(project_id="p-1")),
            [],
            id="said-twice",
        ),
        pytest.param(
            (
                Allowed(project_id="p-1", roles=frozenset({"reader"})),
                Allowed(project_id="p-1", roles=frozenset({"member"})),
                Allowed(project_id="p-2"),
            ),
            ["member", "reader"],
            id="two-rows",
        ),
    ],
)
def test_what_is_remembered_permits_no_more_than_the_entry_did(
    allowed: tuple[Allowed, ...], roles: list[str]
) -> None:
    entry = Entry("g2", "f", "i", projects=allowed)
    assert roles_counted(entry, WHO) == roles
    last = RESOLVED.model_copy(update={"project_id": "p-1", "roles": roles_counted(entry, WHO)})
    kept = entry_resolved(last)
    assert refusal(kept, WHO) == ""
    for roles_held in (frozenset({"auditor"}), frozenset({"member"}), frozenset({"admin"})):
        other = replace(WHO, roles=roles_held)
        assert refusal(kept, other) or not refusal(entry, other)
    assert refusal(kept, replace(WHO, project_id="p-2", project="other"))


def test_an_entry_that_came_to_something_for_nobody_knows_whom_is_not_remembered() -> None:
    """It would be for everybody."""
    away = Found(NoEntry(Reason.CATALOGUE_UNAVAILABLE, "away"))
    assert remembered(away, RESOLVED) is away
    assert remembered(away, RESOLVED.model_copy(update={"project_id": "p-1"})).remembered


@pytest.mark.parametrize(
    ("reason", "live", "recalled"),
    [
        (Reason.ENTRY_NOT_FOUND, True, False),
        (Reason.PROJECT_NOT_PERMITTED, True, False),
        (Reason.IMAGE_NOT_FOUND, False, False),
        (Reason.CATALOGUE_UNAVAILABLE, False, False),
    ],
)
def test_only_the_live_catalogue_takes_back(reason: Reason, live: bool, recalled: bool) -> None:
    entry = Entry("g2", "f", "i")
    assert withdrawn(reason, Found(entry)) == live
    assert withdrawn(reason, Found(entry, remembered=True)) == recalled


# -- VMFlavors as a catalogue -----------------------------------------------------------------


class Told(list[str]):
    """Names of entries that changed."""


def a_catalogue(*bodies: dict[str, Any]) -> tuple[Flavors, Told]:
    flavors, told = Flavors(), Told()
    for body in bodies:
        flavors.apply(body)
    flavors.listen(told.append)
    return flavors, told


def test_a_name_that_nobody_has_given_means_nothing() -> None:
    found = Flavors().find("g2")
    assert isinstance(found.entry, NoEntry)
    assert found.entry.reason is Reason.ENTRY_NOT_FOUND


def test_an_entry_follows_its_object() -> None:
    flavors, told = a_catalogue(a_body())
    flavors.apply(a_body(version=2, flavor="m1.huge"))
    entry = flavors.find("g2").entry
    assert isinstance(entry, Entry)
    assert entry.flavor == "m1.huge"
    flavors.apply(a_body(version=3), deleted=True)
    assert isinstance(flavors.find("g2").entry, NoEntry)
    assert told == ["g2", "g2"]


def test_an_old_version_undoes_nothing() -> None:
    flavors, told = a_catalogue(a_body(version=5, flavor="new"))
    flavors.apply(a_body(version=4, flavor="old"))
    assert told == []


def test_an_old_version_that_comes_after_its_deletion_brings_nothing_back() -> None:
    flavors, told = a_catalogue(a_body(version=5))
    flavors.apply(a_body(version=9), deleted=True)
    flavors.apply(a_body(version=7))
    assert isinstance(flavors.find("g2").entry, NoEntry)
    flavors.reconcile(Snapshot((), 12))
    flavors.apply(a_body(version=7))
    assert isinstance(flavors.find("g2").entry, NoEntry)
    flavors.apply(a_body(version=13))
    assert isinstance(flavors.find("g2").entry, Entry)
    assert told == ["g2", "g2"]


def test_a_malformed_one_that_goes_is_not_there() -> None:
    flavors, told = a_catalogue(a_body(version=2, flavor=7))
    assert told == []
    flavors.reconcile(Snapshot((), 9))
    found = flavors.find("g2").entry
    assert isinstance(found, NoEntry)
    assert found.reason is Reason.ENTRY_NOT_FOUND


def test_the_echo_of_an_entry_that_a_list_showed_to_be_gone_is_none() -> None:
    flavors, _ = a_catalogue(a_body(version=5))
    assert flavors.reconcile(Snapshot((), 9)) == 1
    flavors.apply(a_body(version=5))
    assert isinstance(flavors.find("g2").entry, NoEntry)


def test_a_list_brings_what_no_event_has_told() -> None:
    flavors, told = a_catalogue()
    assert flavors.reconcile(Snapshot((a_body(version=3),), 9)) == 0
    assert isinstance(flavors.find("g2").entry, Entry)
    assert told == ["g2"]


def test_a_malformed_entry_leaves_the_last_good_one_and_says_so() -> None:
    flavors, told = a_catalogue(a_body())
    flavors.apply(a_body(version=2, flavor=7, metadata={"token": "s3cret"}))
    found = flavors.find("g2")
    assert isinstance(found.entry, Entry)
    assert found.entry.flavor == "m1.large"
    assert found.stale is not None
    assert "VMFlavor 'g2': spec.flavor" in found.stale.message
    assert "s3cret" not in found.stale.message
    flavors.apply(a_body(version=3, flavor="m1.huge"))
    assert flavors.find("g2").stale is None
    assert told == ["g2", "g2"]


def test_a_status_that_is_written_wakes_nobody() -> None:
    flavors, told = a_catalogue(a_body())
    flavors.apply(a_body(version=2) | {"status": {"state": "Resolved"}})
    assert told == []


# -- what is written on a VMFlavor ------------------------------------------------------------


def a_resolution(name: str = "data", image: str = "i-1", message: str = "") -> Resolution:
    ids = {} if message else {"flavor_id": "f-1", "image_id": image}
    return Resolution("g2", Ref(POOL.namespace, name), "lab", "p-1", message=message, **ids)


def status(before: VMFlavorStatus, *told: Resolution, later: int = 0) -> VMFlavorStatus:
    return flavor_status(before, told, generation=1, now=NOW + timedelta(seconds=later))


def test_what_it_came_to_is_told_for_each_pool() -> None:
    told = status(VMFlavorStatus(), a_resolution("b"), a_resolution("a"))
    assert [row.pool for row in told.resolved] == ["search/a", "search/b"]
    assert (told.resolved[0].flavor_id, told.resolved[0].image_id) == ("f-1", "i-1")
    assert (told.state, told.conditions[0].status.value) == ("Resolved", "True")


def test_the_time_is_when_it_came_to_these_ids() -> None:
    before = status(VMFlavorStatus(), a_resolution())
    assert status(before, a_resolution(), later=60) == before
    after = status(before, a_resolution(image="i-2"), later=60)
    assert after.resolved[0].time == NOW + timedelta(seconds=60)


def test_a_pool_for_which_it_means_nothing_any_more_keeps_what_it_had() -> None:
    before = status(VMFlavorStatus(), a_resolution())
    after = status(before, a_resolution(message="no image"), later=60)
    assert (after.resolved[0].image_id, after.resolved[0].message) == ("i-1", "no image")
    assert after.resolved[0].time == NOW
    assert (after.state, after.conditions[0].message) == ("Unresolved", "search/data: no image")


def test_what_a_tenants_cloud_says_is_cut_to_what_the_status_takes() -> None:
    """Whoever writes a pool says where its Keystone is, so any text may come from there."""
    told = status(VMFlavorStatus(), replace(a_resolution(), region="r" * 300, project="p" * 70))
    (row,) = told.resolved
    assert (len(row.region), len(row.project_id)) == (255, 64)


def test_of_more_pools_than_there_is_room_for_the_first_are_listed_and_all_counted() -> None:
    told = status(VMFlavorStatus(), *(a_resolution(f"p-{i:03}") for i in range(501)))
    assert (len(told.resolved), told.resolved[-1].pool) == (500, "search/p-499")
    assert told.conditions[0].message == (
        "it means something to 501 pools; the first 500 of 501 pools are listed"
    )


def test_of_a_pool_that_has_not_looked_yet_stands_what_stood_there() -> None:
    before = status(VMFlavorStatus(), a_resolution("a"), a_resolution("b"))
    silent = [Ref(POOL.namespace, "b"), Ref(POOL.namespace, "never-looked")]
    told = [a_resolution("a", image="i-2")]
    after = flavor_status(before, told, silent=silent, generation=1, now=NOW)
    assert [(row.pool, row.image_id) for row in after.resolved] == [
        ("search/a", "i-2"),
        ("search/b", "i-1"),
    ]


def test_an_entry_that_nobody_uses_says_so() -> None:
    told = status(VMFlavorStatus())
    assert (told.state, told.conditions[0].status.value) == ("NotUsed", "Unknown")


def test_a_spec_of_the_model_is_read_as_the_object_is() -> None:
    spec = VMFlavorSpec.model_validate({"flavor": "f", "image": {"name": "i"}})
    assert entry_of("x", spec) == Entry("x", "f", "i")


def another(body: dict[str, Any]) -> dict[str, Any]:
    """One that was made under the same name when the first was gone."""
    return {**body, "metadata": {**body["metadata"], "uid": "another"}}


def test_what_was_deleted_is_not_in_force_for_a_malformed_one_of_its_name() -> None:
    """Of its end we may hear last."""
    flavors, _ = a_catalogue(a_body(version=10))
    flavors.apply(another(a_body(version=12, flavor=7)))
    flavors.apply(a_body(version=11), deleted=True)
    found = flavors.find("g2")
    assert isinstance(found.entry, NoEntry)
    assert found.entry.reason is Reason.ENTRY_MALFORMED


def test_an_end_that_is_told_late_leaves_the_next_of_that_name_in_force() -> None:
    for body in (a_body(version=10), a_body(version=10, flavor=7)):
        flavors, told = a_catalogue(body)
        flavors.apply(another(a_body(version=12, flavor="m1.huge")))
        flavors.apply(a_body(version=11), deleted=True)
        entry = flavors.find("g2").entry
        assert isinstance(entry, Entry)
        assert entry.flavor == "m1.huge"
        assert told == ["g2"]


def test_a_list_leaves_a_malformed_one_that_is_newer() -> None:
    flavors, _ = a_catalogue(a_body(version=12, flavor=7))
    assert flavors.reconcile(Snapshot((), 9)) == 0
    found = flavors.find("g2").entry
    assert isinstance(found, NoEntry)
    assert found.reason is Reason.ENTRY_MALFORMED
