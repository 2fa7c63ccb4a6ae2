"""racks.yaml: what it may say, and what it tells whoever writes it wrongly."""

import pytest
import yaml

from warmpool.domain.errors import RackConfigInvalid
from warmpool.effects.racks.config import KINDS, read_racks_yaml

CMS = {"url": "https://cms/{host}", "rack": "$.rack"}
LISTED = {"url": "https://cms/all", "rack": "$.rack", "items": "$[*]", "host": "$.name"}


def told(*sources: object, **cloud: object) -> str:
    """What is wrong with these sources."""
    text = yaml.safe_dump({"clouds": {"lab": {"sources": list(sources), **cloud}}})
    with pytest.raises(RackConfigInvalid) as invalid:
        read_racks_yaml(text, "lab")
    return str(invalid.value)


@pytest.mark.parametrize("text", [None, "clouds: {}", "clouds: {other: {}}"])
def test_without_a_word_the_aggregates_tell_racks(text: str | None) -> None:
    [source] = read_racks_yaml(text, "lab").sources
    assert source.aggregate is not None
    assert source.aggregate.key == "rack"


def test_every_kind_can_be_said() -> None:
    sources = [
        {"aggregate": {"key": "rack"}},
        {"trait": {"prefix": "CUSTOM_RACK_"}},
        {"hostName": {"pattern": "(?P<rack>r[0-9]+)-.*"}},
        {"configMap": {"name": "racks"}},
        {"http": CMS, "name": "cms"},
        {"netbox": {"url": "https://netbox", "tokenKey": "t", "site": "dc1"}},
    ]
    text = yaml.safe_dump({"clouds": {"lab": {"inventory": "admin", "sources": sources}}})
    said = read_racks_yaml(text, "lab")
    assert [source.kinds for source in said.sources] == [[kind] for kind in KINDS]
    assert said.inventory == "admin"


def test_a_cloud_that_is_there_twice_is_refused() -> None:
    """YAML parsers take the last, and the first is lost without a word."""
    text = "clouds:\n  lab: {inventory: admin}\n  lab: {}\n"
    with pytest.raises(RackConfigInvalid, match=r"racks\.yaml has a key twice, at line 3"):
        read_racks_yaml(text, "lab")


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "\x00",
        "7",
        "a: &a [*a]",
        "a: &a {x: 1}\n<<: *a",
        "- clouds",
        "clouds: {lab: {sources: []}}",
    ],
)
def test_what_is_no_racks_yaml_is_refused(text: str) -> None:
    with pytest.raises(RackConfigInvalid, match=r"racks\.yaml"):
        read_racks_yaml(text, "lab")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({}, "a source is one of aggregate, trait, hostName"),
        ({"aggregate": {}, "trait": {}}, "this has 2"),
        ({"aggregates": {}}, "aggregates: Extra inputs"),
        ({"hostName": {"pattern": "("}}, "no regular expression as RE2"),
        ({"hostName": {"pattern": "(?=a)"}}, "no regular expression as RE2"),
        ({"hostName": {"pattern": "(?P<dc>.*)"}}, "{rack} means nothing here: there is {dc}"),
        ({"http": CMS | {"rack": "rack"}}, "no JSONPath"),
        ({"http": CMS | {"rack": "$..a..b"}}, "one '..' only"),
        ({"http": CMS | {"rack": "$[?match(@.a, 'b')]"}}, "no JSONPath"),
        ({"http": CMS | {"url": "https://cms/{name}"}}, "{name} means nothing here"),
        ({"http": CMS | {"url": "https://cms/{host"}}, "a brace is never closed"),
        ({"netbox": {"url": "https://nb", "device": "host}"}}, "never opened"),
        ({"http": CMS | {"url": "https://user:pw@cms/{host}"}}, "http.url"),
        ({"http": CMS | {"url": "http://{host}/"}}, "not for the name of a host to say"),
        ({"http": CMS | {"url": "http://cms:80{short}/"}}, "not for the name of a host to say"),
        ({"http": CMS | {"url": "file:///etc/{host}"}}, "http.url"),
        ({"http": CMS | {"items": "$[*]"}}, "are for a URL without {host}"),
        ({"http": LISTED | {"host": None}}, "'items' and 'host' say how to read it"),
        ({"http": LISTED | {"nextParameter": "page"}}, "'nextParameter' needs 'next'"),
        ({"http": CMS | {"timeout": "soon"}}, "http.timeout"),
        ({"netbox": {"url": "https://nb", "rack": "{row}"}}, "{row} means nothing here"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(source: dict[str, object], says: str) -> None:
    text = told(source)
    assert says in text
    assert "clouds.lab.sources.0" in text


def test_a_value_in_the_wrong_place_is_not_repeated() -> None:
    """It may be a token."""
    assert "s3cret" not in told({"netbox": {"url": "s3cret://s3cret", "tokenKey": "s3 cret"}})
