"""The catalogue in MongoDB, where it is a store of its own: away, wrong, with documents by hand."""

import asyncio
import copy
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self, cast

import bson
import pytest
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from warmpool.api.names import Reason
from warmpool.cli import main
from warmpool.cli.catalogue import manifests
from warmpool.domain.catalogue import Entry, Found, NoEntry
from warmpool.domain.errors import CatalogueConfigInvalid, CatalogueUnavailable
from warmpool.effects import mongo
from warmpool.effects.mongo import Client, MongoCatalogue, MongoShelf, open_client
from warmpool.planning.catalogue import checked
from warmpool.tools.gobuild import BinariesError
from warmpool.tools.mongodb import MongoServer, open_mongodb

pytestmark = pytest.mark.integration

SPEC: dict[str, Any] = {"flavor": "m1.large", "image": {"name": "debian-13"}}
DATABASE = "warmpool-test"


@pytest.fixture
async def client(mongodb_uri: str) -> AsyncIterator[Client]:
    opened = open_client(mongodb_uri)
    yield opened
    await opened.close()


@pytest.fixture
async def collection(client: Client) -> AsyncIterator[str]:
    name = f"catalogue-{uuid.uuid4().hex}"
    yield name
    await client[DATABASE].drop_collection(name)


@pytest.fixture
def shelf(client: Client, collection: str) -> MongoShelf:
    return MongoShelf(client, DATABASE, collection)


@pytest.fixture
def catalogue(shelf: MongoShelf) -> MongoCatalogue:
    return MongoCatalogue(shelf, checked)


def reason(catalogue: MongoCatalogue, name: str = "g2") -> tuple[Reason, str]:
    """Why there is no entry, or why it may not be the newest word."""
    found = catalogue.find(name)
    why = found.entry if isinstance(found.entry, NoEntry) else found.stale
    assert why is not None
    return why.reason, why.message


@pytest.mark.parametrize(
    ("document", "says"),
    [
        pytest.param({"version": 2}, "spec: it is missing", id="no-spec"),
        pytest.param({"version": 2, "spec": 7}, "spec: ", id="spec-type"),
        pytest.param({"spec": SPEC}, "version: it must be a number", id="no-version"),
        pytest.param({"version": "2", "spec": SPEC}, "version: ", id="version-type"),
        pytest.param({"version": True, "spec": SPEC}, "version: ", id="version-bool"),
        pytest.param(
            {"version": 2, "spec": {**SPEC, "project": []}}, "spec.project: Extra", id="typo"
        ),
        pytest.param({"version": 2, "spec": {**SPEC, "image": {}}}, "keep one of", id="rule"),
        pytest.param(
            {"version": 2, "spec": {**SPEC, "projects": [{"project": "a"}]}}, "both", id="domain"
        ),
        pytest.param({"version": 2, "spec": {**SPEC, "projects": [{}]}}, "keep one", id="nobody"),
        pytest.param({"version": 2, "spec": SPEC, "pad": "x" * (1 << 17)}, "bytes", id="huge"),
    ],
)
async def test_a_document_that_breaks_the_schema_is_told_by_name_and_the_last_good_one_stands(
    client: Client,
    collection: str,
    catalogue: MongoCatalogue,
    document: dict[str, Any],
    says: str,
) -> None:
    documents = client[DATABASE][collection]
    await documents.insert_one({"name": "g2", "version": 1, "spec": SPEC})
    await catalogue.poll()
    assert isinstance(catalogue.find("g2").entry, Entry)
    await documents.replace_one({"name": "g2"}, {"name": "g2", **document})
    await catalogue.poll()
    assert isinstance(catalogue.find("g2").entry, Entry)
    why, text = reason(catalogue)
    assert why is Reason.ENTRY_MALFORMED
    assert "document 'g2'" in text
    assert says in text


@pytest.mark.parametrize("odd", [["g2"], {"g2": 1}, 7, None, DatetimeMS(1 << 60)])
async def test_a_name_that_is_no_text_is_nobodys_and_harms_none(
    client: Client, collection: str, catalogue: MongoCatalogue, odd: Any
) -> None:
    """A list is found by what is in it."""
    documents = client[DATABASE][collection]
    for name in ("g2", odd):
        await documents.insert_one({"name": name, "version": 1, "spec": SPEC})
    await catalogue.poll()
    found = catalogue.find("g2")
    assert isinstance(found.entry, Entry)
    assert found.stale is None


@pytest.mark.parametrize("field", ["_id", "version", "changed"])
async def test_a_date_beyond_the_year_9999_freezes_nobody_else(
    client: Client, collection: str, shelf: MongoShelf, catalogue: MongoCatalogue, field: str
) -> None:
    await shelf.put("g2", SPEC)
    await shelf.put("g3", SPEC)
    await catalogue.poll()
    odd = {"name": "odd", "version": 1, "spec": SPEC, field: DatetimeMS(1 << 60)}
    await client[DATABASE][collection].insert_one(odd)
    await shelf.remove("g3")
    await catalogue.poll()
    gone = catalogue.find("g3").entry
    assert isinstance(gone, NoEntry)
    assert gone.reason is Reason.ENTRY_NOT_FOUND
    assert catalogue.find("g2").stale is None
    if field == "version":
        assert "document 'odd'" in reason(catalogue, "odd")[1]
    else:
        assert isinstance(catalogue.find("odd").entry, Entry)


class Wire:
    """A client whose one collection holds these bytes; they are decoded as pymongo does it."""

    def __init__(self, *documents: bytes) -> None:
        self._documents = b"".join(documents)
        self._options: CodecOptions[Any] = CodecOptions()

    def __getitem__(self, _: str) -> Self:
        return self

    def with_options(self, *, codec_options: CodecOptions[Any]) -> Self:
        other = copy.copy(self)
        other._options = codec_options
        return other

    def find(self, *_: object, **__: object) -> Self:
        return self

    async def to_list(self, _: int) -> list[Any]:
        return bson.decode_all(self._documents, self._options)

    async def __aiter__(self) -> AsyncIterator[Any]:
        for document in await self.to_list(0):
            yield document


async def test_what_is_no_text_is_the_fault_of_its_document() -> None:
    """MongoDB takes it from drivers that do not look, and hands it out as it is."""
    good = bson.encode({"_id": 1, "name": "g2", "version": 1, "spec": SPEC})
    note = bson.encode({"_id": 2, "name": "odd", "version": 1, "note": "xx", "spec": SPEC})
    bad = note.replace(b"xx\0", b"\xff\xfe\0")
    catalogue = MongoCatalogue(MongoShelf(cast(Any, Wire(bad, good)), "", ""), checked)
    await catalogue.poll()
    assert catalogue.find("g2").stale is None
    assert isinstance(catalogue.find("g2").entry, Entry)
    why, text = reason(catalogue, "odd")
    assert why is Reason.ENTRY_MALFORMED
    assert text == "document 'odd' of the catalogue in MongoDB: it is no good BSON"


async def test_what_nobody_thought_of_is_told_and_tried_again(
    shelf: MongoShelf, catalogue: MongoCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would end the replica."""
    await shelf.put("g2", SPEC)
    await catalogue.poll()

    async def fails() -> Any:
        raise LookupError("s3cret")

    with monkeypatch.context() as patched:
        patched.setattr(shelf, "stamps", fails)
        await catalogue.poll()
    assert reason(catalogue) == (Reason.CATALOGUE_UNAVAILABLE, "MongoDB: LookupError")
    await catalogue.poll()
    assert catalogue.find("g2").stale is None


async def test_what_is_read_older_than_it_was_listed_is_read_again(
    shelf: MongoShelf, catalogue: MongoCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secondary may lag behind the one that was asked before."""
    await shelf.put("g2", SPEC)
    older = await shelf.read(["g2"])

    async def lags(_: object) -> Any:
        return older

    await shelf.put("g2", {**SPEC, "flavor": "other"})
    with monkeypatch.context() as patched:
        patched.setattr(shelf, "read", lags)
        await catalogue.poll()
    await catalogue.poll()
    found = catalogue.find("g2").entry
    assert isinstance(found, Entry)
    assert found.flavor == "other"


async def test_trouble_in_other_words_wakes_nobody(
    shelf: MongoShelf, catalogue: MongoCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    await shelf.put("g2", SPEC)
    await catalogue.poll()
    catalogue.listen(told.append)
    texts = ["away", "lost", "away"]

    async def fails() -> Any:
        raise CatalogueUnavailable(texts[0])

    with monkeypatch.context() as patched:
        patched.setattr(shelf, "stamps", fails)
        while texts:
            await catalogue.poll()
            assert reason(catalogue)[1] == texts.pop(0)
    assert told == ["g2"]
    await catalogue.poll()
    assert told == ["g2", "g2"]


async def test_a_collection_without_entries_is_not_believed(
    client: Client, collection: str, shelf: MongoShelf, catalogue: MongoCatalogue
) -> None:
    """A wrong name, or a restore between drop and fill, are not the end of every entry."""
    empty = f"MongoDB: the collection {DATABASE}.{collection} is empty: is it the right one?"
    await catalogue.poll()
    assert isinstance(catalogue.find("g2").entry, NoEntry)
    assert reason(catalogue) == (Reason.CATALOGUE_UNAVAILABLE, empty)
    for name in ("g2", "g3"):
        await shelf.put(name, SPEC)
    await catalogue.poll()
    assert catalogue.find("g2").stale is None
    await client[DATABASE].drop_collection(collection)
    await catalogue.poll()
    for name in ("g2", "g3"):
        assert isinstance(catalogue.find(name).entry, Entry)
        assert reason(catalogue, name) == (Reason.CATALOGUE_UNAVAILABLE, empty)
    heard: dict[str, Found] = {}
    catalogue.listen(lambda name: heard.update({name: catalogue.find(name)}))
    await shelf.put("g3", SPEC)
    await catalogue.poll()
    assert isinstance(gone := heard["g2"].entry, NoEntry)  # whoever is told finds it so
    assert gone.reason is Reason.ENTRY_NOT_FOUND
    assert catalogue.find("g3").stale is None


async def test_two_documents_of_a_name_are_malformed_until_one_is_gone(
    client: Client, collection: str, catalogue: MongoCatalogue
) -> None:
    documents = client[DATABASE][collection]
    await documents.insert_one({"name": "g2", "version": 1, "spec": SPEC})
    await catalogue.poll()
    second = await documents.insert_one(
        {"name": "g2", "version": 1, "spec": {**SPEC, "flavor": "other"}}
    )
    await catalogue.poll()
    assert "there are 2 of this name" in reason(catalogue)[1]
    await documents.delete_one({"_id": second.inserted_id})
    await catalogue.poll()
    found = catalogue.find("g2")
    assert found.stale is None
    assert isinstance(found.entry, Entry)
    assert found.entry.flavor == "m1.large"


async def test_a_shelf_that_is_prepared_takes_no_second_one_of_a_name(
    client: Client, collection: str, shelf: MongoShelf
) -> None:
    await shelf.prepare()
    await shelf.prepare()
    await shelf.put("g2", SPEC)
    with pytest.raises(DuplicateKeyError):
        await client[DATABASE][collection].insert_one({"name": "g2", "version": 1})


async def test_only_what_has_another_version_is_read_but_now_and_then_all_of_it(
    client: Client,
    collection: str,
    shelf: MongoShelf,
    catalogue: MongoCatalogue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mongo, "WHOLE_EVERY", 3)
    asked: list[list[str]] = []
    read = shelf.read

    async def counted(names: Any) -> Any:
        asked.append(sorted(names))
        return await read(names)

    monkeypatch.setattr(shelf, "read", counted)
    await shelf.put("g2", SPEC)
    await shelf.put("g3", SPEC)
    await catalogue.poll()
    await shelf.put("g3", {**SPEC, "flavor": "other"})
    await catalogue.poll()
    forgotten = {"$set": {"spec.flavor": "by-hand"}}
    await client[DATABASE][collection].update_one({"name": "g2"}, forgotten)
    await catalogue.poll()
    assert asked == [["g2", "g3"], ["g3"]]
    await catalogue.poll()
    assert asked[2:] == [["g2", "g3"]]
    found = catalogue.find("g2").entry
    assert isinstance(found, Entry)
    assert found.flavor == "by-hand"


async def test_what_was_read_before_something_fails_counts(
    client: Client,
    collection: str,
    shelf: MongoShelf,
    catalogue: MongoCatalogue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mongo, "BATCH", 2)
    asked: list[list[str]] = []
    told: list[str] = []
    read = shelf.read

    async def fails_once(names: Any) -> Any:
        asked.append(sorted(names))
        if len(asked) == 2:
            raise CatalogueUnavailable("MongoDB: gone")
        return await read(names)

    monkeypatch.setattr(shelf, "read", fails_once)
    documents = [{"name": f"e{n}", "version": 1, "spec": SPEC} for n in range(3)]
    await client[DATABASE][collection].insert_many(documents)
    catalogue.listen(told.append)
    await catalogue.poll()
    assert isinstance(catalogue.find("e0").entry, Entry)
    assert reason(catalogue, "e2") == (Reason.CATALOGUE_UNAVAILABLE, "MongoDB: gone")
    assert {"e0", "e1"} == set(told)
    await catalogue.poll()
    assert isinstance(catalogue.find("e2").entry, Entry)
    assert asked == [["e0", "e1"], ["e2"], ["e0", "e1"], ["e2"]]


async def test_others_have_their_turn_while_many_documents_are_taken_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf = MongoShelf(cast(Any, Wire()), "", "")
    catalogue = MongoCatalogue(shelf, checked)
    documents = {f"e{n}": {"_id": n, "version": 1, "spec": SPEC} for n in range(50)}
    seen: list[int] = []

    async def stamps() -> Any:
        return {name: ((name, "1"),) for name in documents}

    async def read(names: Any) -> Any:
        return {name: documents[name] for name in names}

    async def looks_on() -> None:
        while len(seen) < len(documents):
            found = (catalogue.find(name).entry for name in documents)
            seen.append(sum(isinstance(entry, Entry) for entry in found))
            await asyncio.sleep(0)

    monkeypatch.setattr(shelf, "stamps", stamps)
    monkeypatch.setattr(shelf, "read", read)
    await asyncio.gather(catalogue.poll(), looks_on())
    assert seen == list(range(1, 51))


async def test_an_entry_that_was_deleted_and_written_anew_between_two_looks_is_read(
    shelf: MongoShelf, catalogue: MongoCatalogue
) -> None:
    """Its version is 1 both times."""
    await shelf.put("g2", SPEC)
    await catalogue.poll()
    await shelf.remove("g2")
    await shelf.put("g2", {**SPEC, "flavor": "other"})
    await catalogue.poll()
    found = catalogue.find("g2").entry
    assert isinstance(found, Entry)
    assert found.flavor == "other"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[MongoServer]:
    """One that may be killed."""
    try:
        server = open_mongodb(tmp_path)
    except BinariesError as error:
        pytest.skip(f"no MongoDB of our own: {error}")
    with server:
        yield server


AWAY = {"it does not answer in time", "it cannot be reached", "the connection was lost"}


async def has_answered(catalogue: MongoCatalogue) -> None:
    """Look until it answers: the driver takes a moment to see that it is back."""
    async with asyncio.timeout(30):
        await catalogue.poll()
        while catalogue.find("g2").stale or isinstance(catalogue.find("g2").entry, NoEntry):
            await catalogue.poll()


async def test_while_it_is_away_what_it_said_last_stands_and_says_so(
    own: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = MongoShelf(open_client(own.uri), DATABASE, "catalogue")
    catalogue, fresh = MongoCatalogue(shelf, checked), MongoCatalogue(shelf, checked)
    told: list[str] = []
    await shelf.put("g2", SPEC)
    await catalogue.poll()
    catalogue.listen(told.append)
    own.stop()
    with monkeypatch.context() as patched:
        patched.setattr(mongo, "ANSWER_WITHIN", 1.0)
        for one in (catalogue, fresh):
            await one.poll()
            await one.poll()
    assert isinstance(catalogue.find("g2").entry, Entry)
    assert isinstance(fresh.find("g2").entry, NoEntry)
    for one in (catalogue, fresh):
        why, text = reason(one)
        assert why is Reason.CATALOGUE_UNAVAILABLE
        assert text.removeprefix("MongoDB: ") in AWAY
    own.start()
    for one in (catalogue, fresh):
        await has_answered(one)
    assert set(told) == {"g2"}
    await shelf.close()


async def ask_on(shelf: MongoShelf) -> None:
    """For as long as it answers: it may have time for one more."""
    while True:
        await shelf.stamps()


async def test_one_that_hangs_is_given_up_in_time(
    own: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = MongoShelf(open_client(own.uri), DATABASE, "catalogue")
    await shelf.put("g2", SPEC)
    monkeypatch.setattr(mongo, "ANSWER_WITHIN", 1.0)
    own.pause()
    async with asyncio.timeout(30):
        with pytest.raises(CatalogueUnavailable):
            await ask_on(shelf)
    own.resume()
    await shelf.close()


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://who:s3cr@t@127.0.0.1/",
        "mongodb://who:s3cret@127.0.0.1:s3cret/",
        "mongodb://who:s3cret@127.0.0.1/?tsl=true",
        "mongodb://who:s3cret@127.0.0.1/?tls=s3cret",
        "http://who:s3cret@127.0.0.1/",
        "s3cret",
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(CatalogueConfigInvalid) as refused:
        open_client(uri)
    assert "s3cr" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


async def test_trouble_tells_neither_password_nor_host(
    own: MongoServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mongo, "ANSWER_WITHIN", 1.0)
    caplog.set_level("DEBUG")
    client = open_client(own.uri.replace("//", "//who:s3cret@"))
    catalogue = MongoCatalogue(MongoShelf(client, DATABASE, "catalogue"), checked)
    await catalogue.poll()
    why, text = reason(catalogue)
    assert why is Reason.CATALOGUE_UNAVAILABLE
    assert "127.0.0.1" not in text
    assert "s3cret" not in text + caplog.text
    await client.close()


def moved(uri: str, *args: str) -> int:
    """`warmpool catalogue`, as a process of its own would run it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WARMPOOL_MONGODB_URI", uri)
        return main(["catalogue", "--database", DATABASE, *args])


def test_entries_are_moved_between_a_file_and_mongodb(
    mongodb_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted, back = tmp_path / "wanted.yaml", tmp_path / "back.yaml"
    wanted.write_text(manifests({"g2": SPEC, "g3": {**SPEC, "flavor": "m1.huge"}}))
    where = ("--collection", f"catalogue-{uuid.uuid4().hex}")
    assert moved(mongodb_uri, *where, "diff", "mongodb", str(wanted)) == 1
    assert moved(mongodb_uri, *where, "import", "mongodb", str(wanted)) == 0
    assert moved(mongodb_uri, *where, "diff", "mongodb", str(wanted)) == 0
    assert moved(mongodb_uri, *where, "export", "mongodb", "-o", str(back)) == 0
    assert back.read_text() == wanted.read_text()
    capsys.readouterr()
    prune = (*where, "import", "--prune", "mongodb", str(wanted))
    wanted.write_text(manifests({}))
    assert moved(mongodb_uri, *prune) == 2
    wanted.write_text(manifests({"g2": SPEC}))
    assert moved(mongodb_uri, *prune) == 0
    assert capsys.readouterr().out == "- g3\n"


def test_without_a_word_the_operators_own_collection_is_meant(
    mongodb_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    collection, wanted = f"catalogue-{uuid.uuid4().hex}", tmp_path / "wanted.yaml"
    wanted.write_text(manifests({"g2": SPEC}))
    assert moved(mongodb_uri, "--collection", collection, "import", "mongodb", str(wanted)) == 0
    capsys.readouterr()
    monkeypatch.setenv("WARMPOOL_MONGODB_URI", mongodb_uri)
    monkeypatch.setenv("WARMPOOL_MONGODB_DATABASE", DATABASE)
    monkeypatch.setenv("WARMPOOL_MONGODB_COLLECTION", collection)
    assert main(["catalogue", "export", "mongodb"]) == 0
    told = capsys.readouterr()
    assert told.out == wanted.read_text()
    assert f"database {DATABASE!r}, collection {collection!r}" in told.err
    assert "entries: 1" in told.err


def test_an_export_of_nothing_is_an_error_and_leaves_the_older_file(
    mongodb_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "catalogue.yaml"
    file.write_text(manifests({"g2": SPEC}))
    where = ("--collection", f"catalogue-{uuid.uuid4().hex}")
    assert moved(mongodb_uri, *where, "export", "mongodb", "-o", str(file)) == 2
    assert "mongodb has no entry: nothing was written" in capsys.readouterr().err
    assert file.read_text() == manifests({"g2": SPEC})


Told = Callable[..., Awaitable[str]]


@pytest.fixture
def told(collection: str, mongodb_uri: str, capsys: pytest.CaptureFixture[str]) -> Told:
    """What `warmpool catalogue` prints, beside a loop that runs."""

    async def run(*args: str) -> str:
        await asyncio.to_thread(moved, mongodb_uri, "--collection", collection, *args)
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"spec": SPEC}, id="no-version"),
        pytest.param({"version": "2", "spec": SPEC}, id="version-type"),
        pytest.param({"version": 2, "spec": {**SPEC, "project": []}}, id="typo"),
        pytest.param({"version": 2}, id="no-spec"),
    ],
)
async def test_a_document_that_the_operator_refuses_differs_and_is_mended_by_an_import(
    client: Client, shelf: MongoShelf, told: Told, tmp_path: Path, document: dict[str, Any]
) -> None:
    catalogue = MongoCatalogue(shelf, checked)
    wanted = tmp_path / "wanted.yaml"
    wanted.write_text(manifests({"g2": SPEC}))
    database, collection = shelf.where.split(".")
    await client[database][collection].insert_one({"name": "g2", **document})
    assert await told("diff", "mongodb", str(wanted)) == "~ g2\n"
    assert await told("import", "mongodb", str(wanted)) == "~ g2\n"
    assert await told("diff", "mongodb", str(wanted)) == ""
    await catalogue.poll()
    assert isinstance(catalogue.find("g2").entry, Entry)
    assert catalogue.find("g2").stale is None


async def test_an_entry_is_written_whole_with_another_version(
    client: Client, collection: str, shelf: MongoShelf
) -> None:
    """What it said before is not merged in, and no value is taken for an expression."""
    await shelf.put("g2", {**SPEC, "metadata": {"tier": "gold"}})
    await shelf.put("g2", {**SPEC, "metadata": {"who": "$name"}})
    found = await client[DATABASE][collection].find_one({"name": "g2"}, {"_id": 0})
    assert found == {"name": "g2", "version": 2, "spec": {**SPEC, "metadata": {"who": "$name"}}}
