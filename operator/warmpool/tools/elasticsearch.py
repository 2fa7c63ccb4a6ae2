"""A real Elasticsearch node for tests, out of Maven's jars: one node on loopback, without security.

It has what history needs (templates, data streams made by writing, bulk, searches, composite
aggregations) and lacks what comes as modules: no lifecycles, no scripts, no ingest, no SQL.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, Self

from warmpool.tools.processes import Process, free_ports

SOURCE: Final = Path(__file__).resolve().parents[3] / "tools" / "elasticsearch"

OLDEST_JAVA: Final = 21

START_WITHIN: Final = 300.0
"""Seconds; five are usual, and a busy machine has taken more than 120."""

BUILD_WITHIN: Final = 900.0

_DESCRIPTOR: Final = """\
name=transport-netty4
description=HTTP and transport
version={version}
elasticsearch.version={version}
java.version=21
classname=org.elasticsearch.transport.netty4.Netty4Plugin
extended.plugins=
has.native.controller=false
licensed=false
"""

_LOGGING: Final = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""

_OPTIONS: Final = (
    "-Xmx512m",
    "--enable-native-access=ALL-UNNAMED",
    "--add-modules=jdk.incubator.vector",
    "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",
    "-Dio.netty.noUnsafe=true",
)


class ElasticsearchError(Exception):
    """There is none and none can be had; the text says why."""


class Elasticsearch:
    """A node that runs from `start` to `stop`."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        """Its data and its log stand in the directory.

        Raises:
            ElasticsearchError: it lacks Java or Maven, or Maven finds no jars.
        """
        self._directory = directory
        self._java = find_java(environ)
        self._home = ensure_home(self._java, environ)
        self._http, self._transport = free_ports(2)
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http}"

    def start(self) -> None:
        """Start, and wait until it answers. What it held before is there again."""
        home = self._home
        command = [
            str(self._java / "bin" / "java"),
            *_OPTIONS,
            f"-Des.nativelibs.path={home / 'native'}",
            f"-Dlog4j2.configurationFile={home / 'config' / 'log4j2.properties'}",
            "-cp",
            f"{home / 'lib'}/*:{home / 'classes'}",
            "Single",
            *map(str, (home, self._directory, self._http, self._transport)),
        ]
        self._process = Process.start(command, log=self._directory / "elasticsearch.log")
        try:
            self._process.wait_for(self._healthy, START_WITHIN, "Elasticsearch's health")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _healthy(self) -> bool | None:
        try:
            with urllib.request.urlopen(f"{self.url}/_cluster/health", timeout=2) as answer:  # noqa: S310 - http, ours
                return json.load(answer)["status"] in ("yellow", "green") or None
        except (OSError, ValueError):
            return None


def find_java(environ: Mapping[str, str]) -> Path:
    """The home of a JDK that is new enough: JAVA_HOME's, PATH's, or one beside them.

    Raises:
        ElasticsearchError: there is none.
    """
    found = shutil.which("javac", path=environ.get("PATH"))
    named = [Path(environ["JAVA_HOME"])] if environ.get("JAVA_HOME") else []
    linked = [Path(found).resolve().parents[1]] if found else []
    beside = sorted(Path("/usr/lib/jvm").glob("*/"), reverse=True)
    for home in (*named, *linked, *beside):
        if java_version(home) >= OLDEST_JAVA and (home / "bin" / "javac").exists():
            return home
    raise ElasticsearchError(f"no JDK of at least {OLDEST_JAVA}: set JAVA_HOME to one")


def java_version(home: Path) -> int:
    """The major version of a JDK; 0: it is none."""
    try:
        match = re.search(r'JAVA_VERSION="(\d+)', (home / "release").read_text())
    except OSError:
        return 0
    return int(match[1]) if match else 0


def ensure_home(java: Path, environ: Mapping[str, str]) -> Path:
    """A node's home in the user's cache, made first if there is none for these sources.

    Raises:
        ElasticsearchError: Maven is not there or finds no jars.
    """
    digest = hashlib.sha256(f"{java_version(java)}".encode())
    for path in (SOURCE / "pom.xml", SOURCE / "Single.java", Path(__file__)):
        digest.update(path.read_bytes())
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = Path(base) / "warmpool" / "elasticsearch" / digest.hexdigest()[:24]
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".making-") as making:
            fresh = Path(making) / "home"
            _make(fresh, java, environ)
            if not home.exists():
                fresh.rename(home)
    return home


def _make(home: Path, java: Path, environ: Mapping[str, str]) -> None:
    """Lay jars out as Elasticsearch's own distribution does."""
    maven = shutil.which("mvn", path=environ.get("PATH"))
    if maven is None:
        raise ElasticsearchError("Maven is not on PATH, and brings Elasticsearch's jars")
    lib, plugin, classes = home / "lib", home / "modules" / "transport-netty4", home / "classes"
    for directory in (lib, plugin, classes, home / "config", home / "native", home / "plugins"):
        directory.mkdir(parents=True)
    copy = ["dependency:copy-dependencies", f"-DoutputDirectory={lib}"]
    _run([maven, "-q", "-B", "-f", str(SOURCE / "pom.xml"), *copy], environ)
    for prefix in ("netty-", "transport-netty4-", "elasticsearch-ssl-config-"):
        for jar in lib.glob(f"{prefix}*.jar"):
            jar.rename(plugin / jar.name)
    [server] = lib.glob("elasticsearch-[0-9]*.jar")
    version = server.stem.removeprefix("elasticsearch-")
    (plugin / "plugin-descriptor.properties").write_text(_DESCRIPTOR.format(version=version))
    (home / "config" / "log4j2.properties").write_text(_LOGGING)
    (home / "config" / "elasticsearch.yml").touch()
    _link_zstd(home / "native", Path("/usr/lib").glob("*/libzstd.so.1"))
    compiler = [str(java / "bin" / "javac"), "-cp", f"{lib}/*", "-d", str(classes)]
    _run([*compiler, str(SOURCE / "Single.java")], environ)


def _link_zstd(directory: Path, candidates: Iterable[Path]) -> None:
    for found in candidates:
        (directory / "libzstd.so").symlink_to(found)
        return
    raise ElasticsearchError("libzstd.so.1 is not there: install Debian's libzstd1")


def _run(command: list[str], environ: Mapping[str, str]) -> None:
    done = subprocess.run(
        command,
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_WITHIN,
    )
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise ElasticsearchError(f"{Path(command[0]).name} failed: {said}")


def open_elasticsearch(directory: Path) -> Elasticsearch:
    """A node of our own, not yet started.

    Raises:
        ElasticsearchError: it lacks Java or Maven, or Maven finds no jars.
    """
    return Elasticsearch(directory, os.environ)
