"""`make new` creates a project beside the template."""

import json
import re
from pathlib import Path

import pytest

from scripts.template.new import new_project
from scripts.template.project_name import RefusedError
from tests.template.conftest import Project


@pytest.fixture
def orders(tmp_path: Path) -> Project:
    """The new project, in a folder that does not exist yet."""
    return Project(tmp_path / "made" / "orders")


@pytest.mark.parametrize("history", ["", "drop"])
def test_new_project_starts_without_history(
    template: Project, orders: Project, history: str
) -> None:
    """It has the new name, and all files are staged for the first commit."""
    said = new_project("orders", str(orders.root), history, template.root)

    assert f"cd {orders.root}\n" in said
    assert orders.read("orders/main.py") == 'TITLE = "Orders"\n'
    assert orders.git("status", "--short").splitlines()[0].startswith("A  ")
    assert orders.git("rev-list", "--all") == ""
    assert orders.commit("Start orders")


def test_new_project_can_keep_the_history(template: Project, orders: Project) -> None:
    """In this case, the rename is the first change on top of the template's commits."""
    new_project("orders", str(orders.root), "keep", template.root)

    assert orders.git("rev-parse", "HEAD") == template.git("rev-parse", "HEAD")
    assert orders.git("branch", "--show-current") == "main\n"
    assert orders.read("orders/main.py") == 'TITLE = "Orders"\n'


@pytest.mark.parametrize("history", ["keep", "drop"])
def test_new_project_knows_its_template(template: Project, orders: Project, history: str) -> None:
    """The remote `template` is the template's own origin, and the commit is recorded."""
    commit = template.git("rev-parse", "HEAD").strip()
    template.git("remote", "add", "origin", "https://git.example.com/template")

    new_project("orders", str(orders.root), history, template.root)

    assert orders.git("remote", "-v").splitlines() == [
        "template\thttps://git.example.com/template (fetch)",
        "template\thttps://git.example.com/template (push)",
    ]
    assert json.loads(orders.read(".template.json")) == {"commit": commit}


def test_new_leaves_the_template_alone(template: Project, orders: Project) -> None:
    """It changes neither the files nor the repository of the template."""
    new_project("orders", str(orders.root), "keep", template.root)

    assert template.git("status", "--porcelain") == ""
    assert template.git("remote") == ""
    assert template.read("paper_mill/main.py") == 'TITLE = "Paper mill"\n'


def test_the_first_command_works_in_a_folder_with_a_space(
    template: Project, tmp_path: Path
) -> None:
    """The shell would read two words."""
    said = new_project("orders", str(tmp_path / "my orders"), "", template.root)

    assert f"cd '{tmp_path}/my orders'\n" in said


def test_an_empty_folder_is_used(template: Project, orders: Project) -> None:
    """The folder may already exist if it is empty."""
    orders.root.mkdir(parents=True)

    new_project("orders", str(orders.root), "", template.root)

    assert "orders/main.py" in orders.files()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("orders", "", ""), "Say where to put it: make new NAME=orders DIR=../orders"),
        (("orders", "../full", ""), "DIR=../full exists"),
        (("orders", "../full/file", ""), "DIR=../full/file exists"),
        (("orders", ".", ""), "DIR=. is inside the template"),
        (("orders", "orders", ""), "DIR=orders is inside the template"),
        (("orders", "../full/file/orders", ""), "DIR=../full/file/orders cannot be made"),
        (("class", "../orders", ""), "NAME='class' is taken"),
        (("", "../orders", ""), "NAME='' is not a name"),
        (("orders", "../orders", "no"), "HISTORY=no is neither keep nor drop"),
    ],
)
def test_impossible_requests_are_refused(
    template: Project, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, str, str], why: str
) -> None:
    """One line says what is wrong, and no folder is created."""
    full = template.root.parent / "full"
    full.mkdir()
    (full / "file").write_text("mine")
    monkeypatch.chdir(template.root)

    with pytest.raises(RefusedError, match=re.escape(why)):
        new_project(*arguments, template.root)

    assert sorted(path.name for path in template.root.parent.iterdir()) == ["full", "template"]
    assert (full / "file").read_text() == "mine"


def test_changes_in_the_template_are_refused(template: Project, orders: Project) -> None:
    """The new project would not contain them."""
    template.write({"notes.txt": "mine"})

    with pytest.raises(RefusedError, match="Commit or stash your changes first"):
        new_project("orders", str(orders.root), "", template.root)

    assert not orders.root.exists()
