"""YAML of strangers: whatever it says, it is read or refused, and never anything else."""

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from warmpool.domain.errors import CloudConfigInvalid, RackConfigInvalid
from warmpool.effects.nova_config import read_cloud
from warmpool.effects.plain_yaml import MAX_TEXT, NotPlainYamlError, parse
from warmpool.effects.racks.config import read_racks_yaml

LEVELS = 9
BOMB = "\n".join(
    ["a0: &a0 {h: r}"]
    + [f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}" for n in range(LEVELS)]
)
STRANGE = [
    pytest.param("clouds: !!map [a]", id="a mapping that is a list"),
    pytest.param("clouds: !!bool maybe", id="a truth that is none"),
    pytest.param("clouds: !!timestamp soon", id="a time that is none"),
    pytest.param('clouds: !!int ""', id="a number that is none"),
    pytest.param("clouds: !!python/object:os.system {}", id="an object"),
    pytest.param("clouds: &a [*a]", id="a list within itself"),
    pytest.param("clouds: {lab: 1, lab: 2}", id="a key twice"),
    pytest.param("clouds: " + "[" * 30_000, id="deep"),
    pytest.param("- " * 10_000, id="deeper"),
    pytest.param("\x00", id="no text"),
    pytest.param("clouds: {}\n---\nclouds: {}", id="two documents"),
    pytest.param("#" * (MAX_TEXT + 1), id="long"),
    pytest.param(BOMB, id="bomb"),
]


@pytest.mark.parametrize("text", STRANGE)
def test_what_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(NotPlainYamlError):
        parse(text)
    with pytest.raises(CloudConfigInvalid):
        read_cloud(text, "lab")
    with pytest.raises(RackConfigInvalid):
        read_racks_yaml(text, "lab")


@given(st.text(alphabet="ab:-[]{}&*!<>|'\"#%\n \t0~", max_size=60))
def test_no_text_makes_another_error(text: str) -> None:
    with contextlib.suppress(NotPlainYamlError):
        parse(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=20,
    )
)
def test_what_is_written_is_read(value: object) -> None:
    assert parse(yaml.safe_dump(value)) == value


def test_entries_may_share_what_they_have_in_common() -> None:
    """As in many a clouds.yaml: an entry that stands below says some of it otherwise."""
    text = "base: &b {x: 1, y: 1}\ndeep: {one: &m {<<: *b, x: 2}}\ntop: {<<: *m, y: 3}\n"
    assert parse(text)["top"] == {"x": 2, "y": 3}
    assert parse("a: &a {x: 1}\nb: &b {y: 2}\nc:\n  <<: *a\n  <<: *b\n")["c"] == {"x": 1, "y": 2}


def test_what_a_message_says_is_not_what_stands_there() -> None:
    for text in ("hunter2: 1\nhunter2: 2", "a: [hunter2", "a: !!int hunter2"):
        with pytest.raises(NotPlainYamlError) as caught:
            parse(text)
        assert "hunter2" not in str(caught.value)
