"""`warmpool catalogue export|import|diff`: the catalogue between files, VMFlavors and MongoDB.

A file is what `kubectl get vmflavors -o yaml` and `kubectl apply` understand. Places are told as
`vmflavors`, `mongodb`, or the path of a file; `-` is standard input or output.
"""

import argparse
import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import yaml
from pydantic import ValidationError

from warmpool.api.names import API_VERSION, Kind
from warmpool.api.v1alpha1.flavor import VMFlavorSpec
from warmpool.domain.catalogue import Entry
from warmpool.domain.errors import CatalogueError, ClusterError, NotFound
from warmpool.domain.ids import Ref
from warmpool.effects.kube import Credentials, KubeCluster
from warmpool.effects.mongo import MongoShelf, judged, open_client
from warmpool.planning.catalogue import checked
from warmpool.ports.cluster import Cluster

SAME: Final = 0
DIFFERENT: Final = 1
ERROR: Final = 2
"""Exit statuses: done, or nothing differs; something differs; it could not be told or done."""

MONGODB: Final = "mongodb"
VMFLAVORS: Final = "vmflavors"
URI: Final = "WARMPOOL_MONGODB_URI"
DATABASE: Final = "WARMPOOL_MONGODB_DATABASE"
COLLECTION: Final = "WARMPOOL_MONGODB_COLLECTION"

NAME: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
MAX_NAME: Final = 253
"""What Kubernetes takes for an object's name."""

END: Final = "# entries: "
"""Last line of a file, with their count: one that was cut off does not have it."""

Specs = dict[str, Any]
"""Name of each entry to its spec, or to what stands in its place."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that the operator does not take: the same as no entry, whatever its spec says."""

    spec: Any


class Place(Protocol):
    """Where entries are kept."""

    async def read(self) -> Specs:
        """All entries."""
        ...

    async def put(self, name: str, spec: Mapping[str, Any]) -> None:
        """Write one, whether it is there or not."""
        ...

    async def remove(self, name: str) -> None:
        """Delete one. Quiet if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes one catalogue out of another, by name."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def told(self) -> list[str]:
        """A line for each."""
        marks = ("+", self.added), ("~", self.changed), ("-", self.removed)
        return [f"{mark} {name}" for mark, names in marks for name in names]


def changes(before: Specs, after: Specs) -> Changes:
    """Entries that mean the same in other words do not differ."""
    both = before.keys() & after.keys()
    return Changes(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(n for n in both if _meaning(n, before[n]) != _meaning(n, after[n]))),
        tuple(sorted(before.keys() - after.keys())),
    )


def _meaning(name: str, spec: Any) -> Any:
    """An entry, or what stands there if it is none."""
    if isinstance(spec, Refused):
        return spec
    found = entry(name, spec)
    return found if isinstance(found, Entry) else spec


def entry(name: str, spec: Any) -> Entry | str:
    """The entry of a spec, or what is wrong with it."""
    try:
        return checked(name, VMFlavorSpec.model_validate(spec, extra="forbid"))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(('spec', *map(str, first['loc'])))}: {first['msg']}"


class FilePlace:
    """Manifests of VMFlavors in a file, or `-`."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def read(self) -> Specs:
        """All entries.

        Raises:
            OSError: there is no such file.
            ValueError: it holds something else, or a name twice.
        """
        return self._parsed(_text(self._path))

    def _parsed(self, text: str) -> Specs:
        try:
            bodies = [body for body in yaml.safe_load_all(text) if body is not None]
        except yaml.YAMLError as error:
            raise ValueError(f"{self._path}: it is no YAML: {str(error)[:300]}") from None
        found: Specs = {}
        for body in _items(bodies):
            name = _name(body)
            if name is None or name in found:
                said = "an object that is no VMFlavor" if name is None else f"{name!r} twice"
                raise ValueError(f"{self._path}: it holds {said}")
            found[name] = body.get("spec")
        return found

    async def read_whole(self) -> Specs:
        """All entries of a file that is surely whole: what is not in it may be deleted.

        Raises:
            OSError: there is no such file.
            ValueError: it holds something else, no entry, or was cut off.
        """
        text = _text(self._path)
        found = self._parsed(text)
        if not found:
            raise ValueError(
                f"{self._path}: it has no entry, and --prune would delete all that there are:"
                " look whether it is the right file; to delete them all, do so in the store"
            )
        end = f"{END}{len(found)}"
        if text.rstrip().rpartition("\n")[2] != end:
            raise ValueError(
                f"{self._path}: --prune needs {end!r} as the last line, which says that nothing"
                " was cut off: export anew, or write it there if these are all the entries"
            )
        return found


def _items(bodies: list[Any]) -> list[Any]:
    """The objects of manifests and of lists of them."""
    lists = (b["items"] if isinstance(b, dict) and "items" in b else [b] for b in bodies)
    return [item for items in lists for item in items]


def _name(body: Any) -> str | None:
    try:
        name = body["metadata"]["name"]
        return name if body["kind"] == Kind.VM_FLAVOR.value and isinstance(name, str) else None
    except (KeyError, TypeError):
        return None


def manifests(specs: Specs) -> str:
    """A file's text.

    Raises:
        ValueError: a document of MongoDB's holds what no manifest can.
    """
    head = {"apiVersion": API_VERSION, "kind": Kind.VM_FLAVOR.value}
    plain = ((n, s.spec if isinstance(s, Refused) else s) for n, s in sorted(specs.items()))
    bodies = [{**head, "metadata": {"name": name}, "spec": spec} for name, spec in plain]
    try:
        text = str(yaml.safe_dump_all(bodies, sort_keys=False, allow_unicode=True))
    except yaml.YAMLError as error:
        raise ValueError(f"an entry is no manifest: {str(error)[:300]}") from None
    return f"{text}{END}{len(bodies)}\n"


class FlavorPlace:
    """VMFlavors."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def read(self) -> Specs:
        bodies = (await self._cluster.list(Kind.VM_FLAVOR)).items
        return {body["metadata"]["name"]: body["spec"] for body in bodies}

    async def put(self, name: str, spec: Mapping[str, Any]) -> None:
        old = await self._find(name)
        if old is None:
            head = {"apiVersion": API_VERSION, "kind": Kind.VM_FLAVOR.value}
            body = {**head, "metadata": {"name": name}, "spec": dict(spec)}
            await self._cluster.create(Kind.VM_FLAVOR, body)
        else:
            await self._cluster.replace(Kind.VM_FLAVOR, {**old, "spec": dict(spec)})

    async def remove(self, name: str) -> None:
        old = await self._find(name)
        if old is not None:
            uid, version = old["metadata"]["uid"], int(old["metadata"]["resourceVersion"])
            await self._cluster.delete(Kind.VM_FLAVOR, Ref("", name), uid=uid, version=version)

    async def _find(self, name: str) -> Mapping[str, Any] | None:
        try:
            return await self._cluster.get(Kind.VM_FLAVOR, Ref("", name))
        except NotFound:
            return None


class MongoPlace:
    """Documents in MongoDB."""

    def __init__(self, shelf: MongoShelf) -> None:
        self._shelf = shelf

    async def read(self) -> Specs:
        """All entries; what the operator refuses is told.

        Raises:
            ValueError: documents that cannot be read, or two of a name.
            CatalogueUnavailable: MongoDB does not answer.
        """
        stamps = await self._shelf.stamps()
        twice = sorted(name for name, each in stamps.items() if len(each) > 1)
        if twice:
            raise ValueError(f"MongoDB: there is more than one document {twice[0]!r}")
        found: Specs = {}
        for name, document in (await self._shelf.read(stamps)).items():
            if isinstance(document, str):
                raise ValueError(f"MongoDB: document {name!r}: {document}")  # noqa: TRY004 - not our caller's fault
            spec, said = document.get("spec"), judged(name, document, 1, checked)
            if isinstance(said, str):
                _note(f"MongoDB: document {name!r}: the operator refuses it: {said}")
            found[name] = Refused(spec) if isinstance(said, str) else spec
        return found

    async def put(self, name: str, spec: Mapping[str, Any]) -> None:
        await self._shelf.put(name, spec)

    async def remove(self, name: str) -> None:
        await self._shelf.remove(name)


def add_parser(commands: Any) -> None:
    """Add `catalogue` to the subcommands of `warmpool`."""
    parser = commands.add_parser("catalogue", help="move the catalogue, or compare two of them")
    parser.add_argument("--kubeconfig", default=None, help="default: $KUBECONFIG")
    parser.add_argument("--uri-file", help=f"MongoDB's URI stands there; default: ${URI}")
    _add_setting(parser, "--database", DATABASE, "warmpool")
    _add_setting(parser, "--collection", COLLECTION, "catalogue")
    deeds = parser.add_subparsers(dest="deed", required=True)
    export = deeds.add_parser("export", help="write all entries as manifests")
    export.add_argument("place", choices=(VMFLAVORS, MONGODB))
    export.add_argument("-o", "--output", default="-", metavar="FILE")
    bring = deeds.add_parser("import", help="bring a file's entries into a store")
    bring.add_argument("place", choices=(VMFLAVORS, MONGODB))
    bring.add_argument("file", help="as export writes it; - is standard input")
    bring.add_argument("--prune", action="store_true", help="delete what the file does not have")
    bring.add_argument("--dry-run", action="store_true", help="only show what would change")
    diff = deeds.add_parser("diff", help="what makes the second of the first; exits 1 if anything")
    for which in ("before", "after"):
        diff.add_argument(which, help=f"{VMFLAVORS}, {MONGODB}, or a file")
    parser.set_defaults(run=run)


def _add_setting(parser: Any, flag: str, variable: str, default: str) -> None:
    """The operator's own variable counts here, too: both mean the same catalogue."""
    found = os.environ.get(variable) or default
    parser.add_argument(flag, default=found, help=f"MongoDB's; default: ${variable} or {default}")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    try:
        return asyncio.run(_run(args))
    except (OSError, ValueError, CatalogueError, ClusterError) as error:
        print(f"warmpool catalogue: {error}", file=sys.stderr)
        return ERROR


async def _run(args: argparse.Namespace) -> int:
    match args.deed:
        case "export":
            async with _store(args, args.place) as place:
                _export(args, await place.read())
            return SAME
        case "import":
            file = FilePlace(args.file)
            wanted = sound(await (file.read_whole() if args.prune else file.read()))
            async with _store(args, args.place) as place:
                return await bring(place, wanted, args)
        case _:
            found = changes(await _read(args, args.before), await _read(args, args.after))
            _show(found)
            return DIFFERENT if found else SAME


def _export(args: argparse.Namespace, specs: Specs) -> None:
    """Write a file.

    Raises:
        ValueError: there is nothing to write: an older file stays as it is.
    """
    if not specs:
        raise ValueError(f"{args.place} has no entry: nothing was written")
    _write(args.output, manifests(specs))
    _note(f"entries: {len(specs)}")


def sound(wanted: Specs) -> Specs:
    """Entries that every store takes.

    Raises:
        ValueError: one breaks the schema: it is too early for anything to have been written.
    """
    for name, spec in sorted(wanted.items()):
        if wrong := _flaw(name, spec):
            raise ValueError(f"entry {name!r}: {wrong}; nothing was written")
    return wanted


def _flaw(name: str, spec: Any) -> str:
    found = entry(name, spec)
    if isinstance(found, str):
        return found
    if len(name) > MAX_NAME or re.fullmatch(NAME, name) is None:
        return "metadata.name: Kubernetes takes a-z, 0-9, - and . only, and pools name no other"
    return _twice(VMFlavorSpec.model_validate(spec))


def _twice(spec: VMFlavorSpec) -> str:
    """What stands twice in a list that Kubernetes takes for a set."""
    tags = spec.image.newest.tags if spec.image.newest else []
    sets = [("image.newest.tags", tags)]
    sets += [(f"projects.{n}.roles", one.roles) for n, one in enumerate(spec.projects)]
    return next((f"spec.{at}: a value stands twice" for at, of in sets if len({*of}) < len(of)), "")


async def bring(place: Place, wanted: Specs, args: argparse.Namespace) -> int:
    """Make the store hold what is wanted; what differs is written, and nothing else.

    Each line is told when it is done: what was told before an error has happened.
    """
    found = changes(await place.read(), wanted)
    if not args.prune:
        found = Changes(found.added, found.changed, ())
    for line in found.told():
        if not args.dry_run:
            await _do(place, line, wanted)
        print(line, flush=True)
    return SAME


async def _do(place: Place, line: str, wanted: Specs) -> None:
    mark, _, name = line.partition(" ")
    if mark == "-":
        await place.remove(name)
    else:
        await place.put(name, wanted[name])


async def _read(args: argparse.Namespace, where: str) -> Specs:
    if where not in (VMFLAVORS, MONGODB):
        return await FilePlace(where).read()
    async with _store(args, where) as place:
        return await place.read()


@asynccontextmanager
async def _store(args: argparse.Namespace, where: str) -> AsyncIterator[Place]:
    if where == MONGODB:
        _note(f"MongoDB: database {args.database!r}, collection {args.collection!r}")
        shelf = MongoShelf(open_client(_uri(args)), args.database, args.collection)
        try:
            if args.deed == "import" and not args.dry_run:
                await shelf.prepare()
            yield MongoPlace(shelf)
        finally:
            await shelf.close()
        return
    path = args.kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    async with KubeCluster(await Credentials.load(path), "default") as cluster:
        yield FlavorPlace(cluster)


def _uri(args: argparse.Namespace) -> str:
    """Never an argument: whoever lists processes would read it."""
    uri = Path(args.uri_file).read_text("utf-8") if args.uri_file else os.environ.get(URI, "")
    if not uri.strip():
        raise ValueError(f"where is MongoDB? Set {URI}, or name a file with --uri-file")
    return uri.strip()


def _text(path: str) -> str:
    return sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")


def _write(path: str, text: str) -> None:
    """A file is there whole or not at all."""
    target = Path(path)
    if path == "-":
        sys.stdout.write(text)
    elif target.exists() and not target.is_file():
        target.write_text(text, "utf-8")  # a pipe
    else:
        _replace(target.resolve(), text)


def _replace(target: Path, text: str) -> None:
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(text, "utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _show(found: Changes) -> None:
    for line in found.told():
        print(line)


def _note(text: str) -> None:
    """Beside what may be piped on."""
    print(f"warmpool catalogue: {text}", file=sys.stderr)
