"""The catalogue of problems."""

import re

import pytest

from example_service.api.problems import catalogue
from example_service.api.problems.catalogue import (
    NOT_FOUND,
    OVERLOADED,
    ProblemType,
    define,
    defined_problem_types,
    find_problem_type,
    plain_status,
)


def problem_type(slug: str, status: int = 400) -> ProblemType:
    """A problem type with placeholder texts."""
    return ProblemType(slug, status, "Title", "Meaning.", "Cause.", "Remedy.")


def test_every_type_explains_itself() -> None:
    """Each type has all its texts as full sentences, and can be found by its slug."""
    types = defined_problem_types()
    assert len(types) >= 15
    assert [each.slug for each in types] == sorted(each.slug for each in types)
    for each in types:
        assert find_problem_type(each.slug) is each
        assert 400 <= each.status <= 599
        assert each.title == each.title.strip()
        assert not each.title.endswith(".")
        for text in (each.meaning, each.cause, each.remedy):
            assert re.fullmatch(r"[A-Z`].*\.", text), text


@pytest.fixture
def _catalogue_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the types defined here after each test."""
    monkeypatch.setattr(catalogue, "_defined", dict(catalogue._defined))


@pytest.mark.usefixtures("_catalogue_of_this_test")
def test_a_type_can_be_defined_by_a_domain() -> None:
    """Defining returns the type; defining it again, as a second import does, is harmless."""
    mine = problem_type("of-a-test")
    assert define(mine) is mine
    assert find_problem_type("of-a-test") is mine
    define(problem_type("of-a-test"))


def test_a_slug_belongs_to_one_type() -> None:
    """Two types cannot share a slug."""
    with pytest.raises(ValueError, match="'not-found' is already defined"):
        define(problem_type(NOT_FOUND.slug))


@pytest.mark.parametrize("slug", ["", "Upper", "a b", "a/b", "-a", "a-", "a--b", "ä", "http-404"])
def test_a_slug_has_a_fixed_format(slug: str) -> None:
    """A slug is part of a URI, and must not look like that of a plain status."""
    with pytest.raises(ValueError, match="slug"):
        define(problem_type(slug))


@pytest.mark.parametrize("status", [0, 200, 399, 600])
def test_a_problem_is_an_error(status: int) -> None:
    """All other statuses are refused."""
    with pytest.raises(ValueError, match="between 400 and 599"):
        define(problem_type("of-another-test", status))


@pytest.mark.parametrize("status", range(400, 600))
def test_every_status_has_a_type(status: int) -> None:
    """Registered or not, every status can be shown and looked up."""
    plain = plain_status(status)
    assert plain.status == status
    assert plain.title
    assert plain.meaning.endswith(".")
    assert find_problem_type(plain.slug) == plain


@pytest.mark.parametrize("slug", ["nothing", "http-200", "http-600", "http-", "", "OVERLOADED"])
def test_unknown_slugs_are_not_found(slug: str) -> None:
    """No type is invented for them."""
    assert find_problem_type(slug) is None
    assert find_problem_type(OVERLOADED.slug) is OVERLOADED
