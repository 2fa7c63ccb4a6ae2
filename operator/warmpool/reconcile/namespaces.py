"""The namespaces and their labels: whom a pool serves may hang on these."""

from collections.abc import Mapping
from dataclasses import dataclass

from warmpool.domain.errors import WentBack
from warmpool.domain.ids import Ref
from warmpool.ports.cluster import Body, Snapshot
from warmpool.reconcile.table import Table, ref_of


@dataclass(frozen=True, slots=True)
class _Namespace:
    ref: Ref
    uid: str
    version: int
    labels: Mapping[str, str]


class Namespaces:
    """Those that are known, kept current by the watch and by a LIST now and then.

    Either may be behind the other. A claim that is refused for labels that its namespace had before
    is refused for good.
    """

    def __init__(self) -> None:
        self._table: Table[_Namespace] = Table()
        self.labels: dict[str, Mapping[str, str]] = {}
        """Of each, by its name."""

    @property
    def newest(self) -> int:
        """The highest resourceVersion that was seen."""
        return self._table.newest

    def apply(self, body: Body, *, deleted: bool = False) -> bool:
        """Take in one as an event shows it.

        Returns:
            Whether it is new, or its labels have changed. An end is nothing that a claim waits for.
        """
        if deleted:
            if self._table.drop(body) is not None:
                del self.labels[body["metadata"]["name"]]
            return False
        meta = body["metadata"]
        labels = dict(meta.get("labels", {}))
        version = int(meta["resourceVersion"])
        if not self._table.put(_Namespace(ref_of(body), meta["uid"], version, labels)):
            return False
        before = self.labels.get(meta["name"])
        self.labels[meta["name"]] = labels
        return before != labels

    def reconcile(self, snapshot: Snapshot) -> bool:
        """Take in a LIST; whether there are new ones in it, or new labels.

        Raises:
            WentBack: it is of a history that is not ours.
        """
        if any(self._table.contradicts(body, snapshot.version) for body in snapshot.items):
            raise WentBack("the API server shows namespaces older than before")
        changed = [self.apply(body) for body in snapshot.items]
        seen = [ref_of(body) for body in snapshot.items]
        for gone in self._table.vanished(seen, snapshot.version):
            del self._table.by_ref[gone.ref]
            del self.labels[gone.ref.name]
        return any(changed)
