"""A failing test of the docs says which line is missing, and where it belongs."""

from tests.docs.hints import corrections


def test_a_missing_row_is_shown_as_it_must_be_written() -> None:
    """It can be copied into the page; only the meaning has to be added."""
    code = [["PORT", "8000"], ["WAREHOUSE__BASE_URL", "http://127.0.0.1:9"]]

    [added] = corrections(code, [["PORT", "8000"]], "settings")

    where, line = added.split(": ", 1)
    assert where == "add below <!-- settings --> in docs/service.md, or in the page of the domain"
    assert line == "| `WAREHOUSE__BASE_URL` | `http://127.0.0.1:9` | what it means |"


def test_a_wrong_row_is_one_to_add_and_one_to_delete() -> None:
    """So is a duplicate row."""
    added, deleted = corrections(
        [["/problems/sold", "404"]], [["/problems/sold", "410"]], "problems"
    )

    assert added.startswith("add ")
    assert added.endswith("| `/problems/sold` | 404 | what it means |")
    assert deleted.startswith("delete ")
    assert deleted.endswith("| `/problems/sold` | 410 | what it means |")
    assert len(corrections([["PORT"]], [["PORT"], ["PORT"]], "settings")) == 1


def test_correct_docs_cause_no_message() -> None:
    """The order of the rows does not matter."""
    assert corrections([["a"], ["b"]], [["b"], ["a"]], "settings") == []
