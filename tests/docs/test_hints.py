"""A test of the docs that fails says which line is missing, and where it belongs."""

from tests.docs.hints import corrections


def test_a_row_that_is_missing_is_shown_as_it_has_to_be_written() -> None:
    """It can be copied into the page, but for its meaning."""
    code = [["PORT", "8000"], ["WAREHOUSE__BASE_URL", "http://127.0.0.1:9"]]

    [added] = corrections(code, [["PORT", "8000"]], "settings")

    where, line = added.split(": ", 1)
    assert where == "add below <!-- settings --> in docs/service.md, or in the page of the domain"
    assert line == "| `WAREHOUSE__BASE_URL` | `http://127.0.0.1:9` | what it means |"


def test_a_row_that_is_wrong_is_one_to_add_and_one_to_delete() -> None:
    """So is one that is there twice."""
    added, deleted = corrections(
        [["/problems/sold", "404"]], [["/problems/sold", "410"]], "problems"
    )

    assert added.startswith("add ")
    assert added.endswith("| `/problems/sold` | 404 | what it means |")
    assert deleted.startswith("delete ")
    assert deleted.endswith("| `/problems/sold` | 410 | what it means |")
    assert len(corrections([["PORT"]], [["PORT"], ["PORT"]], "settings")) == 1


def test_nothing_is_said_of_docs_that_are_right() -> None:
    """In whatever order their rows are."""
    assert corrections([["a"], ["b"]], [["b"], ["a"]], "settings") == []
