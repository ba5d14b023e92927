"""`make rename`: in place, undone by git alone."""

import json
import tomllib

import pytest

from scripts.template.project_name import RefusedError
from scripts.template.rename import rename_project
from tests.template.conftest import Project


def test_rename_leaves_no_trace_of_the_old_name(template: Project) -> None:
    """Contents, file names, folders and hidden files have the new name, and pictures are kept."""
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
    """`git commit` is all that is left to do, and the formatter has run with the new name."""
    rename_project("orders", template.root)

    assert not [line for line in template.git("status", "--short").splitlines() if line[1] != " "]
    assert "formatted.txt" in template.files()


@pytest.mark.parametrize(("name", "ignored"), [("orders", "[A1]"), ("order-archive", "[E501 A1]")])
def test_a_longer_name_may_have_longer_lines(template: Project, name: str, ignored: str) -> None:
    """No formatter breaks comments, so the check of their length makes way for the name."""
    ignore = 'ignore = [\n    "A1",\n]\n'
    template.write({"pyproject.toml": f"{template.read('pyproject.toml')}[tool]\n{ignore}"})
    template.commit("Ignore a rule")

    rename_project(name, template.root)

    tool = tomllib.loads(template.read("pyproject.toml"))["tool"]
    assert f"[{' '.join(tool['ignore'])}]" == ignored


def test_rename_records_the_commit_of_the_template(template: Project) -> None:
    """So later changes of the template can be told from the project's own."""
    commit = template.git("rev-parse", "HEAD").strip()

    rename_project("orders", template.root)

    assert json.loads(template.read(".template.json")) == {"commit": commit}


def test_a_formatter_that_fails_is_named(template: Project) -> None:
    """The project has its new name then, and the message says what is missing."""
    template.write({"Makefile": "format:\n\t@false\n"})
    template.commit("Break the formatter")

    with pytest.raises(RefusedError, match="has its new name; what is missing is `make format`"):
        rename_project("orders", template.root)

    assert "orders/main.py" in template.files()


def test_git_alone_undoes_a_rename(template: Project) -> None:
    """One command, and the files are those of before."""
    before = template.files()
    template.write({"paper_mill/__pycache__/main.pyc": "compiled"})

    rename_project("orders", template.root)
    template.git("reset", "--hard", "--quiet")

    assert template.files() == before
    assert template.git("status", "--porcelain") == ""
    assert template.read("paper_mill/main.py") == 'TITLE = "Paper mill"\n'


@pytest.mark.parametrize("name", ["", "class", "fastapi!", "paper-mill", "json", "it's; exit 0 #"])
def test_a_refused_name_changes_nothing(template: Project, name: str) -> None:
    """One line says why, and make fails."""
    with pytest.raises(RefusedError, match=f"^NAME={name!r} is "):
        rename_project(name, template.root)

    assert template.git("status", "--porcelain") == ""


@pytest.mark.parametrize("file", ["paper_mill/main.py", "notes.txt"])
def test_a_dirty_tree_is_refused(template: Project, file: str) -> None:
    """Neither a changed file nor a new one may be mixed up with the rename."""
    template.write({file: "mine\n"})

    with pytest.raises(RefusedError, match="Commit or stash your changes first") as refused:
        rename_project("orders", template.root)

    assert file in str(refused.value)
    assert template.read(file) == "mine\n"


def test_a_folder_without_git_is_refused(template: Project) -> None:
    """A downloaded archive has to become a repository first, and the message says how."""
    (template.root / ".git").rename(template.root.parent / "history")

    with pytest.raises(RefusedError, match="git init && git add --all && git commit"):
        rename_project("orders", template.root)

    assert template.read("paper_mill/main.py") == 'TITLE = "Paper mill"\n'


def test_a_project_with_a_name_of_one_word_is_not_renamed_again(template: Project) -> None:
    """That word may be anywhere in the text; the message says what to do."""
    rename_project("orders", template.root)
    template.commit("Rename")

    with pytest.raises(RefusedError, match="called orders, which may be a word of its text"):
        rename_project("sales", template.root)


def test_a_project_with_a_name_of_two_words_can_be_renamed_again(template: Project) -> None:
    """It still knows the commit of the template that it was made from."""
    commit = template.git("rev-parse", "HEAD").strip()
    rename_project("order-desk", template.root)
    template.commit("Rename")

    rename_project("sales", template.root)

    assert template.read("sales/main.py") == 'TITLE = "Sales"\n'
    assert json.loads(template.read(".template.json")) == {"commit": commit}
