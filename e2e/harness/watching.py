"""Every state of some objects that a reader of the API could have seen, by way of `kubectl -w`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from warmpool.api.names import Kind
from warmpool.tools.binaries import find_kubectl
from warmpool.tools.cluster import Cluster, default_environ
from warmpool.tools.processes import Process

Body = dict[str, Any]

ARGUMENTS: Final = ("get", "--watch", "--output-watch-events", "-o", "json")


class Watch:
    """What a watch of one kind in one namespace has shown since it began."""

    def __init__(self, cluster: Cluster, kind: Kind, namespace: str, folder: Path) -> None:
        self._log = folder / f"{kind.plural}.json"
        self._process = Process.start(
            [*find_kubectl(default_environ()), *ARGUMENTS, kind.plural, "-n", namespace],
            log=self._log,
            env=cluster.environment(),
            name=f"watch of {kind.plural}",
        )

    def stop(self) -> None:
        self._process.terminate()

    def versions(self) -> Iterator[Body]:
        """The objects, each in all the versions that were shown, in order."""
        decoder = json.JSONDecoder()
        text = self._log.read_text(encoding="utf-8")
        at = text.find("{")
        while at >= 0:
            try:
                event, end = decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                return  # cut off while it was written
            yield event["object"]
            at = text.find("{", end)
