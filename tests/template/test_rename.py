"""`make rename` works in place, and git alone can undo it."""

import json
import tomllib

import pytest

from scripts.template.project_name import RefusedError
from scripts.template.rename import rename_project
from tests.template.conftest import Project


def test_rename_leaves_no_trace_of_the_old_name(template: Project) -> None:
    """Contents, files, folders and hidden files have the new name; pictures do not change."""
    picture = (template.root / "picture.png").read_bytes()

    said = rename_project("order desk", template.root)

    assert "paper-mill is order-desk now" in said
    assert template.read("order_desk/main.py") == 'TITLE = "Order Desk"\n'
    assert template.read("order_desk/data/order_desk.txt") == "order_desk order-desk OrderDesk\n"
    assert template.read(".hidden/order-desk.conf") == "the order desk\n"
    assert (template.root / "picture.png").read_bytes() == picture
    assert not [name for name in template.files() if "mill" in name]
    assert not (template.root / "paper_mill").exists()


def test_rename_formats_and_stages_everything(template: Project) -> None:
    """Only `git commit` is left to do, and the formatter has run with the new name."""
    rename_project("orders", template.root)

    assert not [line for line in template.git("status", "--short").splitlines() if line[1] != " "]
    assert "formatted.txt" in template.files()


@pytest.mark.parametrize(("name", "ignored"), [("orders", "[A1]"), ("order-archive", "[E501 A1]")])
def test_a_longer_name_may_have_longer_lines(template: Project, name: str, ignored: str) -> None:
    """No formatter wraps comments, so the limit for their length grows with the name."""
    ignore = 'ignore = [\n    "A1",\n]\n'
    template.write({"pyproject.toml": f"{template.read('pyproject.toml')}[tool]\n{ignore}"})
    template.commit("Ignore a rule")

    rename_project(name, template.root)

    tool = tomllib.loads(template.read("pyproject.toml"))["tool"]
    assert f"[{' '.join(tool['ignore'])}]" == ignored


def test_rename_records_the_commit_of_the_template(template: Project) -> None:
    """Later changes of the template can then be distinguished from the project's own."""
    commit = template.git("rev-parse", "HEAD").strip()

    rename_project("orders", template.root)

    assert json.loads(template.read(".template.json")) == {"commit": commit}


def test_a_formatter_that_fails_is_reported(template: Project) -> None:
    """The project already has its new name, and the message says what is left to do."""
    template.write({"Makefile": "format:\n\t@false\n"})
    template.commit("Break the formatter")

    with pytest.raises(
        RefusedError, match="Everything is changed; what is missing is `make format`"
    ):
        rename_project("orders", template.root)

    assert "orders/main.py" in template.files()


def test_git_alone_undoes_a_rename(template: Project) -> None:
    """One command restores all files."""
    before = template.files()
    template.write({"paper_mill/__pycache__/main.pyc": "compiled"})

    rename_project("orders", template.root)
    template.git("reset", "--hard", "--quiet")

    assert template.files() == before
    assert template.git("status", "--porcelain") == ""
    assert template.read("paper_mill/main.py") == 'TITLE = "Paper mill"\n'


@pytest.mark.parametrize("name", ["", "class", "fastapi!", "paper-mill", "json", "it's; exit 0 #"])
def test_a_refused_name_changes_nothing(template: Project, name: str) -> None:
    """One line gives the reason, and make fails."""
    with pytest.raises(RefusedError, match=f"^NAME={name!r} is "):
        rename_project(name, template.root)

    assert template.git("status", "--porcelain") == ""


@pytest.mark.parametrize("file", ["paper_mill/main.py", "notes.txt"])
def test_a_dirty_tree_is_refused(template: Project, file: str) -> None:
    """Changed and new files must not be mixed with the rename."""
    template.write({file: "mine\n"})

    with pytest.raises(RefusedError, match="Commit or stash your changes first") as refused:
        rename_project("orders", template.root)

    assert file in str(refused.value)
    assert template.read(file) == "mine\n"


def test_a_folder_without_git_is_refused(template: Project) -> None:
    """A downloaded archive must become a repository first, and the message says how."""
    (template.root / ".git").rename(template.root.parent / "history")

    with pytest.raises(RefusedError, match="git init && git add --all && git commit"):
        rename_project("orders", template.root)

    assert template.read("paper_mill/main.py") == 'TITLE = "Paper mill"\n'


def test_a_project_with_a_name_of_one_word_is_not_renamed_again(template: Project) -> None:
    """The word may occur anywhere in the text, and the message says what to do instead."""
    rename_project("orders", template.root)
    template.commit("Rename")

    with pytest.raises(RefusedError, match="called orders, which may be a word of its text"):
        rename_project("sales", template.root)


def test_a_project_with_a_name_of_two_words_can_be_renamed_again(template: Project) -> None:
    """It keeps the commit of the template from which it was created."""
    commit = template.git("rev-parse", "HEAD").strip()
    rename_project("order-desk", template.root)
    template.commit("Rename")

    rename_project("sales", template.root)

    assert template.read("sales/main.py") == 'TITLE = "Sales"\n'
    assert json.loads(template.read(".template.json")) == {"commit": commit}
