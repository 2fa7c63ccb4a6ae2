"""`warmpool catalogue`: what it says of two catalogues, what it writes, and what it refuses."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml

from builders import NOW
from doubles.cluster import FakeCluster
from warmpool.api.names import Kind
from warmpool.cli import catalogue, main
from warmpool.cli.catalogue import Changes, FilePlace, FlavorPlace, bring, changes, manifests
from warmpool.domain.errors import CatalogueUnavailable

SPEC: dict[str, Any] = {"flavor": "m1.large", "image": {"name": "debian-13"}}
NEWEST: dict[str, Any] = {"newest": {"tags": ["a", "b"], "properties": {}}}


def asked(*, prune: bool = False, dry_run: bool = False) -> argparse.Namespace:
    return argparse.Namespace(prune=prune, dry_run=dry_run)


@pytest.fixture
def flavors() -> FlavorPlace:
    return FlavorPlace(FakeCluster(lambda: NOW))


def test_only_what_means_something_else_differs() -> None:
    before = {"gone": SPEC, "same": {**SPEC, "image": NEWEST}, "other": SPEC, "bad": {"flavor": 7}}
    after = {
        "same": {**SPEC, "image": {"newest": {"tags": ["b", "a"]}}, "metadata": {}},
        "other": {**SPEC, "flavor": "m1.huge"},
        "bad": {"flavor": 7},
        "new": SPEC,
    }
    assert changes(before, after) == Changes(("new",), ("other",), ("gone",))
    assert changes(before, after).told() == ["+ new", "~ other", "- gone"]
    assert not changes(after, after)


async def test_what_is_exported_is_imported_as_it_was(tmp_path: Path) -> None:
    specs = {"b": {**SPEC, "metadata": {"who": "höst"}}, "a": {**SPEC, "image": NEWEST}}
    path = tmp_path / "catalogue.yaml"
    path.write_text(manifests(specs), "utf-8")
    assert await FilePlace(str(path)).read() == specs
    path.write_text(yaml.safe_dump({"items": list(yaml.safe_load_all(manifests(specs)))}), "utf-8")
    assert await FilePlace(str(path)).read() == specs


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "no YAML"),
        ("kind: Pod\nmetadata: {name: a}", "no VMFlavor"),
        ("7", "no VMFlavor"),
        (manifests({"a": SPEC}) + "---\n" + manifests({"a": SPEC}), "'a' twice"),
    ],
)
async def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says):
        await FilePlace(str(path)).read()


TWO = manifests({"a": SPEC, "b": {**SPEC, "projects": [{"projectID": "p"}]}})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "has no entry", id="empty"),
        pytest.param(manifests({}), "has no entry", id="none"),
        pytest.param(TWO.partition("---")[0], "'# entries: 1' as the last line", id="between"),
        pytest.param(TWO.partition("  projects")[0], "'# entries: 2' as the", id="in-one"),
        pytest.param(TWO + "---\n" + manifests({"c": SPEC}), "'# entries: 3' as", id="more"),
    ],
)
def test_nothing_is_deleted_for_a_file_that_may_have_been_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(text)
    assert main(["catalogue", "import", "--prune", "vmflavors", str(path)]) == 2
    assert says in capsys.readouterr().err


async def test_a_whole_file_says_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(TWO)
    assert list(await FilePlace(str(path)).read_whole()) == ["a", "b"]


def test_an_export_that_fails_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text("older")
    write = Path.write_text

    def full(self: Path, text: str, *args: str) -> int:
        write(self, text[:5], *args)
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="no space"):
            catalogue._write(str(path), TWO)
    assert path.read_text() == "older"
    catalogue._write(str(path), TWO)
    assert path.read_text() == TWO
    assert list(tmp_path.iterdir()) == [path]


async def test_an_import_writes_what_differs_and_deletes_only_when_told(
    flavors: FlavorPlace, capsys: pytest.CaptureFixture[str]
) -> None:
    await bring(flavors, {"a": SPEC, "b": SPEC}, asked())
    huge = {"b": {**SPEC, "flavor": "m1.huge"}, "c": SPEC}
    capsys.readouterr()
    await bring(flavors, huge, asked(prune=True, dry_run=True))
    assert capsys.readouterr().out.split("\n") == ["+ c", "~ b", "- a", ""]
    assert await flavors.read() == {"a": SPEC, "b": SPEC}
    await bring(flavors, huge, asked())
    assert await flavors.read() == {"a": SPEC, **huge}
    await bring(flavors, huge, asked(prune=True))
    assert await flavors.read() == huge


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"b": {**SPEC, "project": []}}, "'b': spec.project: "),
        ({"B": SPEC}, "'B': metadata.name: "),
        ({"b..c": SPEC}, "'b..c': metadata.name: "),
        ({"b" * 254: SPEC}, "metadata.name: "),
        ({"b": {**SPEC, "image": {"newest": {"tags": ["t", "t"]}}}}, "spec.image.newest.tags: a "),
        (
            {
                "b": {
                    **SPEC,
                    "projects": [{"projectID": "p"}, {"projectID": "q", "roles": ["r"] * 2}],
                }
            },
            "spec.projects.1.roles: a value stands twice",
        ),
    ],
)
def test_an_entry_that_some_store_refuses_is_told_before_a_store_is_opened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bad: dict[str, Any],
    says: str,
) -> None:
    monkeypatch.delenv("WARMPOOL_MONGODB_URI", raising=False)
    path = tmp_path / "catalogue.yaml"
    path.write_text(manifests({"a": SPEC, **bad}))
    assert main(["catalogue", "import", "mongodb", str(path)]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "nothing was written" in err


async def test_what_was_done_before_an_error_is_told(
    flavors: FlavorPlace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put = flavors.put

    async def fails_at_b(name: str, spec: Any) -> None:
        if name == "b":
            raise CatalogueUnavailable("gone")
        await put(name, spec)

    monkeypatch.setattr(flavors, "put", fails_at_b)
    with pytest.raises(CatalogueUnavailable):
        await bring(flavors, {"a": SPEC, "b": SPEC, "c": SPEC}, asked())
    assert capsys.readouterr().out == "+ a\n"


async def test_an_import_leaves_the_status_alone() -> None:
    cluster = FakeCluster(lambda: NOW)
    flavors = FlavorPlace(cluster)
    await bring(flavors, {"a": SPEC}, asked())
    await bring(flavors, {"a": {**SPEC, "flavor": "m1.huge"}}, asked())
    (body,) = cluster.peek(Kind.VM_FLAVOR).values()
    assert body["spec"]["flavor"] == "m1.huge"


def test_files_are_compared_and_the_exit_status_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(manifests({"a": SPEC}))
    two.write_text(manifests({"a": SPEC, "b": SPEC}))
    assert main(["catalogue", "diff", str(one), str(two)]) == 1
    assert capsys.readouterr().out == "+ b\n"
    assert main(["catalogue", "diff", str(one), str(one)]) == 0
    assert main(["catalogue", "diff", str(one), str(tmp_path / "none")]) == 2


def test_without_a_uri_it_says_how_to_tell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WARMPOOL_MONGODB_URI", raising=False)
    assert main(["catalogue", "export", "mongodb"]) == 2
    assert "WARMPOOL_MONGODB_URI" in capsys.readouterr().err


def test_a_uri_that_cannot_be_used_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = tmp_path / "uri"
    uri.write_text("http://who:s3cret@here/")
    assert main(["catalogue", "--uri-file", str(uri), "export", "mongodb"]) == 2
    err = capsys.readouterr().err
    assert "s3cret" not in err
    assert "mongodb+srv://" in err
