"""The user's cloud: its entry of clouds.yaml, what it offers, and what the demo builds from.

Asking is a child's work: `warmpool.cli.survey` holds the client library, the demo does not.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from warmpool.api.names import TAG_INSTALLATION

SYSTEM_FOLDER: Final = Path("/etc/openstack")
SUFFIXES: Final = (".yaml", ".yml", ".json")
SURVEY_WITHIN: Final = 60.0
"""Seconds for one look at the cloud."""


class CloudError(Exception):
    """The cloud cannot be used for the demo. The text says why and what to do, for people."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a cloud offers, and what is there."""

    flavors: Sequence[Mapping[str, Any]]
    images: Sequence[Mapping[str, Any]]
    networks: Sequence[Mapping[str, Any]]
    zones: Sequence[str]
    servers: Sequence[Mapping[str, Any]]
    instances_left: int | None

    def left_by(self, installation: str) -> list[str]:
        """Names of the servers that carry the tag of an installation."""
        tag = f"{TAG_INSTALLATION}{installation}"
        return [str(s["name"]) for s in self.servers if tag in (s["tags"] or ())]


@dataclass(frozen=True, slots=True)
class Choice:
    """What VMs are built from, and where."""

    flavor: str
    image: str
    networks: tuple[str, ...]
    zones: tuple[str, ...]

    def __str__(self) -> str:
        networks = f"network {', '.join(self.networks)}" if self.networks else "no network"
        zones = f"zones {', '.join(self.zones)}"
        return f"flavor {self.flavor}, image {self.image}, {networks}, {zones}"


def clouds_yaml_of(cloud: str, environ: Mapping[str, str]) -> str:
    """A clouds.yaml with that cloud's entry alone, from the first file that the SDK would read.

    Raises:
        CloudError: there is no file, or no such cloud in it.
    """
    file = find(environ.get("OS_CLIENT_CONFIG_FILE"), "clouds", environ)
    if file is None:
        raise CloudError(
            "no clouds.yaml: set OS_CLIENT_CONFIG_FILE, or put one here, in"
            f" ~/.config/openstack or in {SYSTEM_FOLDER}"
        )
    clouds = _clouds_in(file)
    if cloud not in clouds:
        there = ", ".join(sorted(clouds)) or "none"
        raise CloudError(f"{file} has no cloud {cloud!r}; it has: {there}")
    entry = clouds[cloud]
    secure = find(environ.get("OS_CLIENT_SECURE_FILE"), "secure", environ)
    if secure is not None:
        entry = merged(entry, _clouds_in(secure).get(cloud, {}))
    return yaml.safe_dump({"clouds": {cloud: entry}}, sort_keys=False)


def find(named: str | None, stem: str, environ: Mapping[str, str]) -> Path | None:
    """The first file there is: the one named, then the working folder's, the user's, the system's.

    That is the order of openstacksdk.
    """
    home = Path(environ.get("HOME") or Path.home())
    own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "openstack"
    folders = (Path.cwd(), own, SYSTEM_FOLDER)
    paths = [folder / f"{stem}{suffix}" for folder in folders for suffix in SUFFIXES]
    candidates = [Path(named), *paths] if named else paths
    return next((path for path in candidates if path.is_file()), None)


def merged(below: Any, above: Any) -> Any:
    """Two entries as one: where both have a value, the second's."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


def _clouds_in(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        # The cause may quote a line, and that line may hold a password.
        raise CloudError(f"{file} cannot be read as YAML") from None
    clouds = document.get("clouds") if isinstance(document, dict) else None
    return clouds if isinstance(clouds, dict) else {}


def ask(clouds_yaml: str, cloud: str) -> Survey:
    """Look at the cloud through openstacksdk, in a child process.

    Raises:
        CloudError: it does not answer, or refuses the credentials.
    """
    command = [sys.executable, "-m", "warmpool.cli.survey", cloud]
    try:
        done = subprocess.run(
            command,
            input=clouds_yaml,
            capture_output=True,
            text=True,
            timeout=SURVEY_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CloudError(f"cloud {cloud!r}: no answer in {SURVEY_WITHIN:.0f} s") from error
    if done.returncode != 0:
        why = done.stderr.strip().splitlines() or ["no reason given"]
        raise CloudError(f"cloud {cloud!r}: {why[-1]}")
    return Survey(**json.loads(done.stdout))


def choose(survey: Survey, *, flavor: str | None, image: str | None, network: str | None) -> Choice:
    """What the user names, and else the smallest flavor with an image that it can hold.

    The network is the first one; on a cloud without any, servers get none.

    Raises:
        CloudError: there is nothing to choose from.
    """
    if not survey.flavors or not survey.images:
        what = "flavor" if not survey.flavors else "active image"
        raise CloudError(f"these credentials see no {what}: the demo needs one to build from")
    pairs = [
        (size, kept)
        for size in sorted(survey.flavors, key=lambda f: (f["ram"], f["vcpus"], f["disk"]))
        for kept in sorted(survey.images, key=lambda i: i["size"] or 0)
        if (flavor is None or flavor in {size["id"], size["name"]})
        and (image is None or image in {kept["id"], kept["name"]})
        and holds(size, kept)
    ]
    if not pairs:
        raise CloudError(
            f"no flavor{f' {flavor!r}' if flavor else ''} holds an image"
            f"{f' {image!r}' if image else ''}: name others with --flavor and --image"
        )
    size, kept = pairs[0]
    networks = [network] if network else [str(n["name"] or n["id"]) for n in survey.networks]
    return Choice(
        flavor=flavor or _name(size, survey.flavors),
        image=image or _name(kept, survey.images),
        networks=() if network == "none" else tuple(networks[:1]),
        zones=tuple(sorted(survey.zones)),
    )


def holds(flavor: Mapping[str, Any], image: Mapping[str, Any]) -> bool:
    """Whether an image says that it runs on a flavor. A disk of 0 is as large as the image."""
    disk, ram = int(image["min_disk"] or 0), int(image["min_ram"] or 0)
    return (flavor["disk"] == 0 or disk <= int(flavor["disk"])) and ram <= int(flavor["ram"])


def _name(one: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> str:
    """Its name, or its id where the name means several things."""
    alike = [other for other in among if other["name"] == one["name"]]
    return str(one["name"] if len(alike) == 1 and one["name"] else one["id"])
