"""The demo's own decisions: which cloud, what to build from, how tables fit."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from warmpool.sim.scenarios import load
from warmpool.tools.demo import clouds, samples
from warmpool.tools.demo.clouds import Choice, CloudError, Survey
from warmpool.tools.demo.tables import Layout, cells, widths

TABLE = """\
NAME     MODE        PHASE    PLACED           REASON           AGE
logs-7   RackAware   Bound    9 VMs, 9 racks                    1s
big      RackAware   Failed                    NotEnoughRacks   0s
"""


def flavor(name: str, *, ram: int = 1024, disk: int = 10) -> dict[str, Any]:
    return {"id": f"id-{name}", "name": name, "vcpus": 1, "ram": ram, "disk": disk}


def image(name: str, *, size: int = 1, min_disk: int = 0) -> dict[str, Any]:
    return {"id": f"id-{name}", "name": name, "size": size, "min_ram": 0, "min_disk": min_disk}


def a_survey(**changes: Any) -> Survey:
    offered: dict[str, Any] = {
        "flavors": [flavor("large", ram=8192), flavor("small", ram=512)],
        "images": [image("debian", size=9), image("tiny", size=1)],
        "networks": [{"id": "n1", "name": "private"}, {"id": "n2", "name": "storage"}],
        "zones": ["az2", "az1"],
        "servers": [],
        "instances_left": None,
    }
    return Survey(**offered | changes)


def chosen(survey: Survey, **named: str) -> Choice:
    return clouds.choose(survey, **{"flavor": None, "image": None, "network": None} | named)


def test_the_smallest_flavor_the_smallest_image_and_the_first_network_are_chosen() -> None:
    assert chosen(a_survey()) == Choice("small", "tiny", ("private",), ("az1", "az2"))


def test_a_flavor_too_small_for_every_image_is_passed_over() -> None:
    survey = a_survey(
        flavors=[flavor("nano", ram=64, disk=1), flavor("small", disk=10)],
        images=[image("debian", min_disk=5)],
    )
    assert chosen(survey).flavor == "small"


def test_what_the_user_names_is_taken() -> None:
    choice = chosen(a_survey(), flavor="id-large", image="debian", network="none")
    assert choice == Choice("id-large", "debian", (), ("az1", "az2"))


def test_an_image_whose_name_means_two_is_named_by_its_id() -> None:
    twins = [image("tiny") | {"id": "one"}, image("tiny") | {"id": "two"}]
    assert chosen(a_survey(images=twins)).image in {"one", "two"}


def test_a_cloud_without_images_is_refused_in_words() -> None:
    with pytest.raises(CloudError, match="no active image"):
        chosen(a_survey(images=[]))


def test_a_flavor_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(CloudError, match="'nope'"):
        chosen(a_survey(), flavor="nope")


def test_only_servers_with_the_tag_of_the_installation_count_as_left() -> None:
    ours = {"id": "1", "name": "es-data-1", "tags": ["warmpool.dev:install=abc"]}
    others = {"id": "2", "name": "es-data-2", "tags": ["warmpool.dev:install=abcd"]}
    untagged = {"id": "3", "name": "es-data-3", "tags": None}
    assert a_survey(servers=[ours, others, untagged]).left_by("abc") == ["es-data-1"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and an empty folder to work in."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def write(path: Path, **entries: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"clouds": entries}))


def test_the_file_named_by_the_environment_comes_before_that_of_the_working_folder(
    home: Path,
) -> None:
    write(Path("clouds.yaml"), lab={"region_name": "here"})
    write(home / "named.yaml", lab={"region_name": "named"})
    write(home / ".config/openstack/clouds.yaml", lab={"region_name": "home"})
    environ = {"HOME": str(home)}
    assert "here" in clouds.clouds_yaml_of("lab", environ)
    named = environ | {"OS_CLIENT_CONFIG_FILE": str(home / "named.yaml")}
    assert "named" in clouds.clouds_yaml_of("lab", named)
    os.unlink("clouds.yaml")  # noqa: PTH108 - the working folder's
    assert "home" in clouds.clouds_yaml_of("lab", environ)


def test_only_the_entry_of_the_cloud_is_handed_on_with_its_part_of_secure_yaml(home: Path) -> None:
    write(Path("clouds.yaml"), lab={"auth": {"username": "me"}}, other={"auth": {"password": "x"}})
    write(Path("secure.yaml"), lab={"auth": {"password": "s3cret"}})
    entry = {"auth": {"username": "me", "password": "s3cret"}}
    found = yaml.safe_load(clouds.clouds_yaml_of("lab", {"HOME": str(home)}))
    assert found == {"clouds": {"lab": entry}}


def test_an_unknown_cloud_is_answered_with_those_there_are(home: Path) -> None:
    write(Path("clouds.yaml"), lab={}, other={})
    with pytest.raises(CloudError, match="no cloud 'nope'; it has: lab, other"):
        clouds.clouds_yaml_of("nope", {"HOME": str(home)})


def test_a_broken_file_is_told_without_repeating_it(home: Path) -> None:
    Path("clouds.yaml").write_text("clouds: {lab: {password: s3cret")
    with pytest.raises(CloudError) as error:
        clouds.clouds_yaml_of("lab", {"HOME": str(home)})
    assert "s3cret" not in str(error.value)


def test_the_sample_pools_fit_another_cloud() -> None:
    choice = Choice("m1.micro", "tiny", (), ("az1", "az2"))
    sizes = {"es-data": 12, "es-master": 3}
    data, master = samples.fitted(samples.documents("pools"), choice, sizes)
    assert (data["spec"]["replicas"], master["spec"]["replicas"]) == (12, 3)
    assert data["spec"]["template"] == {"flavor": "m1.micro", "image": "tiny", "networks": []}
    assert data["spec"]["availabilityZones"] == ["az1", "az2"]
    assert "probe" not in data["spec"]["health"]


def test_the_sample_claim_can_be_had_in_the_demo_world_and_the_large_one_cannot() -> None:
    world = load(str(Path(clouds.__file__).with_name("world.yaml")))
    racks = {host.rack for host in world.hosts}
    [claim], [large] = samples.documents("claim-logs-7"), samples.documents("claim-too-large")
    assert sum(r["count"] for r in claim["spec"]["requests"]) == len(racks)
    assert sum(r["count"] for r in large["spec"]["requests"]) > len(racks)


def test_cells_of_a_table_may_be_empty() -> None:
    header, bound, failed = cells(TABLE)
    assert header == ["NAME", "MODE", "PHASE", "PLACED", "REASON", "AGE"]
    assert bound == ["logs-7", "RackAware", "Bound", "9 VMs, 9 racks", "", "1s"]
    assert failed == ["big", "RackAware", "Failed", "", "NotEnoughRacks", "0s"]


def test_a_table_that_fits_stays_as_kubectl_printed_it() -> None:
    rows = cells(TABLE)
    layout = Layout.fitting(widths(rows), 200)
    assert [layout.line(row) for row in rows] == TABLE.splitlines()


@pytest.mark.parametrize("room", [20, 40, 60])
def test_a_table_never_exceeds_its_room_and_keeps_whole_columns(room: int) -> None:
    rows = cells(TABLE)
    layout = Layout.fitting(widths(rows), room)
    assert all(len(layout.line(row)) <= room for row in rows)
    assert layout.line(rows[0]).split() == rows[0][: len(layout.widths)]
