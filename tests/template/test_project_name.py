"""The forms of a project's name, and the names that are refused."""

from pathlib import Path

import pytest

from scripts.template.project_name import (
    MAX_LETTERS,
    Name,
    RefusedError,
    parse_name,
    present_name,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "text", ["order-desk", "order_desk", "order desk", "Order Desk", "ORDER-DESK", " order-desk "]
)
def test_a_name_can_be_written_in_any_form(text: str) -> None:
    """Hyphens, underscores, spaces and capital letters make no difference."""
    name = parse_name(text, ROOT)

    assert (name.package, name.distribution, name.title) == (
        "order_desk",
        "order-desk",
        "Order Desk",
    )


@pytest.mark.parametrize("text", ["orders", "order2", "a", "warehouse-order-archives"])
def test_words_and_digits_form_a_name(text: str) -> None:
    """A single word or a single letter is enough."""
    assert parse_name(text, ROOT).distribution == text
    assert len("warehouse_order_archives") == MAX_LETTERS


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-", "order--desk", "-orders", "orders-", "2orders", "order-2nd", "orders!"),
        *("bestellübersicht", "OrderDesk", "orders/desk", "../orders", "orders.desk", "or'ders"),
    ],
)
def test_an_invalid_name_is_refused(text: str) -> None:
    """The message repeats the input, and shows a valid name."""
    with pytest.raises(RefusedError, match=r"is not a name.*NAME=order-desk") as refused:
        parse_name(text, ROOT)

    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("class", "a word of Python"),
        ("Match", "a word of Python"),
        ("none", "a word of Python"),
        ("print", "a word of Python"),
        ("asyncio", "a module of Python's standard library"),
        ("test", "a module of Python's standard library"),
        ("distutils", "a module of Python's standard library"),
        ("fastapi", "a package that the project uses"),
        ("prometheus client", "a package that the project uses"),
        ("pil", "a package that the project uses"),
        ("tests", "already in the project's folder"),
        ("docs", "already in the project's folder"),
        ("example-service", "already in the project's folder"),
    ],
)
def test_a_name_that_is_taken_is_refused(text: str, owner: str) -> None:
    """Otherwise one of the two packages would hide the other."""
    with pytest.raises(RefusedError, match=f"is taken: .* is {owner}"):
        parse_name(text, ROOT)


def test_a_name_that_is_too_long_is_refused() -> None:
    """The message says how long a name may be."""
    with pytest.raises(RefusedError, match=f"too long: it may have {MAX_LETTERS} letters"):
        parse_name("warehouse-order-archives2", ROOT)


@pytest.mark.parametrize("name", ["ledger_client", "ledger_client.py"])
def test_importable_names_are_taken(tmp_path: Path, name: str) -> None:
    """This includes a package that was installed under a different name."""
    path = tmp_path / ".venv" / "lib" / "python3.13" / "site-packages" / name
    path.mkdir(parents=True)

    with pytest.raises(RefusedError, match="is a package that the project uses"):
        parse_name("ledger-client", tmp_path)


@pytest.mark.parametrize(
    ("found", "put_in_its_place"),
    [
        ("import paper_mill.main", "import order_desk.main"),
        ("paper-mill serve", "order-desk serve"),
        ("class PaperMillError", "class OrderDeskError"),
        ("# Paper mill", "# Order Desk"),
        ("the paper mill", "the order desk"),
        ("PAPER_MILL_TOKEN", "ORDER_DESK_TOKEN"),
        ("a mill, for paper", "a mill, for paper"),
    ],
)
def test_each_form_is_replaced_by_the_same_form(found: str, put_in_its_place: str) -> None:
    """Text other than the name does not change."""
    old, new = Name(("paper", "mill")), Name(("order", "desk"))

    assert old.replaced_by(new, found.encode()).decode() == put_in_its_place


def test_the_new_name_may_contain_the_old_one() -> None:
    """Each occurrence is replaced once."""
    old, new = Name(("paper", "mill")), Name(("my", "paper", "mill"))

    assert old.replaced_by(new, b"paper-mill") == b"my-paper-mill"


def test_a_name_of_one_word_cannot_be_replaced(tmp_path: Path) -> None:
    """It could be an ordinary word, so the message says where to choose another name."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "orders"\n')

    with pytest.raises(RefusedError, match=r"called orders.*Go back to a commit before"):
        present_name(tmp_path)
