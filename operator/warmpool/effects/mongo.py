"""The catalogue in MongoDB: the only module that knows pymongo.

One document for each entry: its `name`, which is unique, a `version` that changes with each change,
and its `spec` as a VMFlavor has it. Names and versions of all documents are polled, and what has a
new version is read: neither change streams nor transactions are needed, nor rights to write.
"""

import asyncio
import contextlib
import logging
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pydantic import ValidationError
from pymongo import AsyncMongoClient
from pymongo.errors import (
    ConnectionFailure,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from warmpool.api.names import Reason
from warmpool.api.v1alpha1.flavor import VMFlavorSpec
from warmpool.domain.catalogue import Entry, Found, NoEntry
from warmpool.domain.errors import CatalogueConfigInvalid, CatalogueUnavailable
from warmpool.ports.catalogue import Changed, ReadSpec

log = logging.getLogger(__name__)

POLL_EVERY: Final = 5.0
"""Seconds between looks at names and versions."""

WHOLE_EVERY: Final = 60
"""Looks after which all documents are read again: somebody may have forgotten the version."""

ANSWER_WITHIN: Final = 10.0
"""Seconds for one call, the choice of a server included."""

POLL_WITHIN: Final = 60.0
"""Seconds for one look, however many documents it reads."""

GOODBYE: Final = 1.0
"""Seconds for the end of connections: one that hangs keeps nobody from stopping."""

MAX_ENTRIES: Final = 10_000
"""Documents that a catalogue has at most."""

MAX_DOCUMENT: Final = 1 << 16
"""Bytes of a document. What takes three quarters of it has all but projects at its longest."""

BATCH: Final = 100
"""Documents that are asked for at once."""

Client = AsyncMongoClient[dict[str, Any]]
Stamp = tuple[str, str]
"""Id and version of a document, as texts. Another one: it is to be read again."""

Document = Mapping[str, Any] | str
"""What stands there, or why that cannot be read."""

T = TypeVar("T")

LENIENT: Final = CodecOptions(
    document_class=RawBSONDocument,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
"""Of answers, which hold many documents: a bad one leaves the others to be read."""

STRICT: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
"""Of one document, which is malformed by what is no text; a date that is too far is no harm."""


def open_client(uri: str) -> Client:
    """A connection, of which nothing is asked yet.

    Raises:
        CatalogueConfigInvalid: the URI cannot be used. The text does not repeat it.
    """
    milliseconds = int(ANSWER_WITHIN * 1000)
    try:
        if not uri.startswith(("mongodb://", "mongodb+srv://")):
            raise InvalidURI
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an option that is misspelt would be left out
            return AsyncMongoClient(
                uri,
                appname="warmpool",
                maxPoolSize=2,
                serverSelectionTimeoutMS=milliseconds // 2,
                connectTimeoutMS=milliseconds // 2,
                socketTimeoutMS=milliseconds,
            )
    except (PyMongoError, ValueError, TypeError, OSError, Warning) as error:
        raise CatalogueConfigInvalid(
            "the URI of the catalogue's MongoDB cannot be used"
            f" ({type(error).__name__}): begin it with mongodb:// or mongodb+srv://,"
            " percent-encode user and password, and name only options that there are"
        ) from None


class MongoShelf:
    """The documents, read and written.

    Raises:
        CatalogueUnavailable: by every method: MongoDB does not answer, or not as it should.
    """

    def __init__(self, client: Client, database: str, collection: str) -> None:
        self._client = client
        self.where = f"{database}.{collection}"
        self._documents = client[database][collection]
        self._raw = self._documents.with_options(codec_options=LENIENT)

    async def prepare(self) -> None:
        """Have names unique, from now on."""
        await _asked(self._documents.create_index("name", unique=True))

    async def stamps(self) -> dict[str, tuple[Stamp, ...]]:
        """Name of each document to its stamp: of more than one, if a name is not unique."""
        rows = await _asked(self._listed())
        if len(rows) > MAX_ENTRIES:
            raise CatalogueUnavailable(f"MongoDB: there are more than {MAX_ENTRIES} documents")
        stamps: dict[str, tuple[Stamp, ...]] = {}
        for row in rows:
            name = _name(row)
            if name is not None:
                stamps[name] = (*stamps.get(name, ()), _stamp_of(row))
        return stamps

    async def _listed(self) -> list[RawBSONDocument]:
        fields = {"_id": 1, "name": 1, "version": 1}
        return await self._raw.find({}, fields).to_list(MAX_ENTRIES + 1)

    async def read(self, names: Iterable[str]) -> dict[str, Document]:
        """Documents by their names; of what cannot be read, why."""
        wanted = sorted(names)
        found: dict[str, Document] = {}
        for first in range(0, len(wanted), BATCH):
            found |= await _asked(self._some(wanted[first : first + BATCH]))
        return found

    async def _some(self, names: list[str]) -> dict[str, Document]:
        found: dict[str, Document] = {}
        async for raw in self._raw.find({"name": {"$in": names}}, batch_size=10):
            name = _name(raw)
            if name is not None and name in names:  # MongoDB finds a list by what is in it, too
                found[name] = _decoded(raw)
        return found

    async def put(self, name: str, spec: Mapping[str, Any]) -> None:
        """Write an entry, whether it is there or not."""
        uncounted = {"name": name, "version": {"$not": {"$type": "number"}}}
        await _asked(self._documents.update_one(uncounted, {"$unset": {"version": ""}}))
        change = {"$set": {"spec": dict(spec)}, "$inc": {"version": 1}}
        await _asked(self._documents.update_one({"name": name}, change, upsert=True))

    async def remove(self, name: str) -> None:
        """Delete an entry. Quiet if there is none."""
        await _asked(self._documents.delete_one({"name": name}))

    async def close(self) -> None:
        await self._client.close()


def _name(raw: RawBSONDocument) -> str | None:
    try:
        name = raw.get("name")
    except BSONError:
        return None
    return name if isinstance(name, str) else None


def _stamp_of(row: RawBSONDocument) -> Stamp:
    document = _decoded(row)
    return ("", str(hash(row.raw))) if isinstance(document, str) else _stamp(document)


def _stamp(document: Mapping[str, Any]) -> Stamp:
    return str(document.get("_id")), repr(document.get("version"))


def _decoded(raw: RawBSONDocument) -> Document:
    if len(raw.raw) > MAX_DOCUMENT:
        return f"it has {len(raw.raw)} bytes, and {MAX_DOCUMENT} are the most"
    try:
        return bson.decode(raw.raw, STRICT)
    except BSONError:
        return "it is no good BSON"


def judged(name: str, document: Document, count: int, read_spec: ReadSpec) -> Entry | str:
    """The entry of a document, one of so many of its name, or why the operator refuses it."""
    if isinstance(document, str):
        return document
    if count > 1:
        return f"there are {count} of this name: delete all but one"
    version = document.get("version")
    if not isinstance(version, int | float) or isinstance(version, bool):
        return "version: it must be a number, another one with each change"
    try:
        spec = VMFlavorSpec.model_validate(document["spec"], extra="forbid")
    except KeyError:
        return "spec: it is missing"
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(('spec', *map(str, first['loc'])))}: {first['msg']}"[:400]
    return read_spec(name, spec)


async def _asked(call: Awaitable[T]) -> T:
    """What MongoDB answers. Of its own words, which may name hosts and users, none are repeated."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await call
    except TimeoutError:
        raise CatalogueUnavailable("MongoDB: it does not answer in time") from None
    except OperationFailure as error:
        name = (error.details or {}).get("codeName") or type(error).__name__
        raise CatalogueUnavailable(f"MongoDB: it refuses: {str(name)[:60]}") from None
    except ServerSelectionTimeoutError:
        raise CatalogueUnavailable("MongoDB: it cannot be reached") from None
    except (ConnectionFailure, OSError):
        raise CatalogueUnavailable("MongoDB: the connection was lost") from None
    except (PyMongoError, BSONError) as error:
        raise CatalogueUnavailable(f"MongoDB: {type(error).__name__}") from None


class MongoCatalogue:
    """`ports.catalogue.Catalogue` over MongoDB."""

    def __init__(self, shelf: MongoShelf, read_spec: ReadSpec) -> None:
        self._shelf = shelf
        self._read_spec = read_spec
        self._stamps: dict[str, tuple[Stamp, ...]] = {}
        self._entries: dict[str, Entry] = {}
        self._malformed: dict[str, str] = {}
        self._trouble = "MongoDB: it has not been read yet"
        self._listeners: list[Changed] = []
        self._polls = 0

    def find(self, name: str) -> Found:
        entry, stale = self._entries.get(name), self._doubt(name)
        if entry is not None:
            return Found(entry, stale)
        if stale is not None:
            return Found(stale)
        text = f"the catalogue in MongoDB has no entry {name!r}: add it, or name another"
        return Found(NoEntry(Reason.ENTRY_NOT_FOUND, text))

    def _doubt(self, name: str) -> NoEntry | None:
        if self._trouble:
            return NoEntry(Reason.CATALOGUE_UNAVAILABLE, self._trouble)
        if name in self._malformed:
            return NoEntry(Reason.ENTRY_MALFORMED, self._malformed[name])
        return None

    def listen(self, changed: Changed) -> Callable[[], None]:
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    async def run(self, beat: Callable[[], None]) -> None:
        """Keep current until cancelled; what is wrong is told of, and tried again."""
        while True:
            beat()
            await self.poll()
            await asyncio.sleep(POLL_EVERY)

    async def close(self) -> None:
        """Free connections, as far as MongoDB lets go of them in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await self._shelf.close()

    async def poll(self) -> None:
        """Look once at what has changed. What was read before something fails counts."""
        try:
            async with asyncio.timeout(POLL_WITHIN):
                gone = await self._look()
        except TimeoutError:
            self._say("MongoDB: it does not answer in time")
        except CatalogueUnavailable as error:
            self._say(str(error))
        except Exception as error:  # noqa: BLE001 - no document may end the replica that reads it
            self._say(f"MongoDB: {type(error).__name__}")  # not its text, which may hold secrets
        else:
            for name in gone:
                self._forget(name)
            self._say("")
            self._tell(gone)

    async def _look(self) -> set[str]:
        """Read the documents whose stamp has changed; the names that have gone."""
        known = self._stamps if self._polls % WHOLE_EVERY else {}
        stamps = await self._shelf.stamps()
        self._hold_against_none(stamps)
        changed = sorted(n for n, stamp in stamps.items() if known.get(n) != stamp)
        for first in range(0, len(changed), BATCH):
            await self._take_some(changed[first : first + BATCH], stamps)
        self._polls += 1
        return self._stamps.keys() - stamps.keys()

    async def _take_some(self, names: list[str], stamps: Mapping[str, tuple[Stamp, ...]]) -> None:
        """Others have their turn after each document, and no more than these are held at once."""
        for name, document in (await self._shelf.read(names)).items():
            if self._take(name, document, stamps[name]):
                self._tell([name])
            await asyncio.sleep(0)

    def _hold_against_none(self, stamps: Mapping[str, tuple[Stamp, ...]]) -> None:
        """A wrong name, one that was not filled yet, a restore: all but a catalogue of nothing."""
        if not stamps:
            raise CatalogueUnavailable(
                f"MongoDB: the collection {self._shelf.where} is empty: is it the right one?"
            )

    def _forget(self, name: str) -> None:
        """An entry has gone."""
        del self._stamps[name]
        self._malformed.pop(name, None)
        self._entries.pop(name, None)

    def _take(self, name: str, document: Document, stamps: tuple[Stamp, ...]) -> bool:
        """Read one document. A malformed one leaves the last good one in force.

        Returns:
            Whether that has changed anything.
        """
        before = self._entries.get(name), self._malformed.get(name)
        if len(stamps) == 1 and not isinstance(document, str):
            stamps = (_stamp(document),)  # a secondary may have given what is older than listed
        self._stamps[name] = stamps
        checked = judged(name, document, len(stamps), self._read_spec)
        if isinstance(checked, Entry):
            self._entries[name] = checked
            self._malformed.pop(name, None)
        else:
            self._malformed[name] = f"document {name!r} of the catalogue in MongoDB: {checked}"
        after = self._entries.get(name), self._malformed.get(name)
        if after != before and not isinstance(checked, Entry):
            log.warning("%s", self._malformed[name])
        return after != before

    def _say(self, trouble: str) -> None:
        before, self._trouble = self._trouble, trouble
        if before == trouble:
            return
        if trouble:
            log.warning("the catalogue: %s: what it said last stands", trouble)
        else:
            log.info("the catalogue: MongoDB answers: %d entries", len(self._entries))
        if not (before and trouble):  # other words for the same wake nobody
            self._tell(self._entries.keys() | self._malformed.keys())

    def _tell(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            for listener in self._listeners:
                listener(name)
