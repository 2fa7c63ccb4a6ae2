"""Names of a template against what a cloud has."""

import pytest

from warmpool.api.names import Reason
from warmpool.domain.errors import DependencyMissing
from warmpool.effects.nova_names import Named, Wanted, choose, missing

TWINS = [Named("1", "ubuntu"), Named("2", "ubuntu"), Named("3", "debian")]


def a_wanted(value: str) -> Wanted:
    return Wanted("image", value, "spec.template.image", Reason.IMAGE_NOT_FOUND)


def test_a_name_means_the_one_thing_that_bears_it() -> None:
    assert choose(a_wanted("debian"), TWINS) == "3"


def test_the_same_thing_listed_twice_is_one_thing() -> None:
    assert choose(a_wanted("debian"), [*TWINS, *TWINS]) == "3"


def test_an_id_wins_over_names() -> None:
    assert choose(a_wanted("2"), [*TWINS, Named("9", "2")]) == "2"


def test_nothing_is_none() -> None:
    assert choose(a_wanted("fedora"), TWINS) is None


def test_a_name_that_several_bear_is_refused_with_their_ids() -> None:
    with pytest.raises(DependencyMissing, match="write the id of one instead") as caught:
        choose(a_wanted("ubuntu"), TWINS)

    assert caught.value.field == "spec.template.image"
    assert "2 images are named 'ubuntu'" in str(caught.value)
    assert "'1', '2'" in str(caught.value)


@pytest.mark.parametrize(
    ("existing", "remedy"),
    [
        (["ubuntu-24.04", "debian"], "did you mean 'ubuntu-24.04'?"),
        (["aa", "bb", "cc", "dd", ""], "there is 'aa', 'bb', 'cc' and 1 more"),
        ([], "these credentials see no image at all"),
    ],
)
def test_a_name_that_is_missing_is_told_with_field_value_and_remedy(
    existing: list[str], remedy: str
) -> None:
    error = missing(a_wanted("ubuntu-22.04"), existing)

    assert str(error) == f"spec.template.image: no image 'ubuntu-22.04' in this project; {remedy}"
    assert error.reason is Reason.IMAGE_NOT_FOUND
