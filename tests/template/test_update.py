"""`make update` brings later changes of the template into a project with another name."""

import json
import shutil
from pathlib import Path

import pytest

from scripts.template.new import new_project
from scripts.template.project_name import RefusedError
from scripts.template.update import update
from tests.template.conftest import Project

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).resolve().parents[2]
LINES = "".join(f"LINE_{number} = {number}\n" for number in range(20))


@pytest.fixture
def growing(template: Project) -> Project:
    """A template with the scripts that rename it, and with a module that changes later."""
    shutil.copytree(
        ROOT / "scripts" / "template",
        template.root / "scripts" / "template",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    template.write({"paper_mill/rules.py": f"import paper_mill.main\n\n{LINES}"})
    template.commit("Add rules")
    return template


@pytest.fixture
def orders(growing: Project, tmp_path: Path) -> Project:
    """A project created from it, without its history and with changes of its own."""
    project = Project(tmp_path / "orders")
    new_project("orders", str(project.root), "drop", growing.root)
    project.commit("Start orders")
    text = project.read("orders/rules.py").replace("LINE_15 = 15", "LINE_15 = 'mine'")
    project.write({"orders/rules.py": text, "orders/ours.py": "OURS = True\n"})
    project.commit("Change a line")
    return project


def release(growing: Project) -> str:
    """Change the template: edit a line, add a file with its name, and delete another."""
    text = growing.read("paper_mill/rules.py").replace("LINE_3 = 3", "LINE_3 = 'PaperMill'")
    growing.write({"paper_mill/rules.py": text, "paper_mill/later.py": "LATER = 'paper_mill'\n"})
    (growing.root / ".hidden" / "paper-mill.conf").unlink()
    return growing.commit("Change the rules")


def test_the_project_has_its_own_changes_and_those_of_the_template(
    growing: Project, orders: Project
) -> None:
    """New files have the project's name, deleted ones are gone, and no own change is lost."""
    commit = release(growing)

    said = update(orders.root)

    rules = orders.read("orders/rules.py")
    assert "`git commit` keeps them" in said
    assert "LINE_3 = 'Orders'" in rules.replace('"', "'")
    assert "LINE_15 = 'mine'" in rules.replace('"', "'")
    assert orders.read("orders/later.py") == 'LATER = "orders"\n'
    assert "orders/ours.py" in orders.files()
    assert ".hidden/orders.conf" not in orders.files()
    assert json.loads(orders.read(".template.json")) == {"commit": commit}
    assert not [name for name in orders.files() if "mill" in name]


def test_the_next_update_starts_where_the_last_one_ended(growing: Project, orders: Project) -> None:
    """Each change arrives once, and without new changes there is nothing to do."""
    release(growing)
    update(orders.root)
    orders.commit("Update")

    assert update(orders.root) == "The project has the newest version of the template."
    growing.write({"paper_mill/latest.py": "LATEST = 1\n"})
    growing.commit("Add another module")
    update(orders.root)

    assert orders.git("diff", "--cached", "--name-only").split() == [
        ".template.json",
        "orders/latest.py",
    ]


def test_a_line_that_both_changed_is_a_conflict(growing: Project, orders: Project) -> None:
    """The message names the file, which has conflict markers; all other files are staged."""
    text = growing.read("paper_mill/rules.py").replace("LINE_15 = 15", "LINE_15 = 'theirs'")
    growing.write({"paper_mill/rules.py": text, "paper_mill/later.py": "LATER = 1\n"})
    growing.commit("Change the same line")

    said = update(orders.root)

    assert said.endswith("\n    orders/rules.py")
    assert orders.read("orders/rules.py").count("LINE_15") == 2
    assert orders.read("orders/later.py") == "LATER = 1\n"


def test_deleted_files_that_the_template_has_changed_are_listed_apart(
    growing: Project, orders: Project
) -> None:
    """They need another command, and there may be many of them if a part has been removed."""
    orders.git("rm", "--quiet", "orders/rules.py")
    orders.commit("Remove the rules")
    release(growing)

    said = update(orders.root)

    assert said.startswith("You have deleted these, and the template has changed them; `git rm`")
    assert said.endswith(":\n\n    orders/rules.py")


def test_git_alone_undoes_an_update(growing: Project, orders: Project) -> None:
    """This works during a conflict as well, and no branch or worktree is left behind."""
    release(growing)
    before = orders.files()

    update(orders.root)
    orders.git("reset", "--hard", "--quiet")

    assert orders.files() == before
    assert orders.git("status", "--porcelain") == ""
    assert len(orders.git("worktree", "list").splitlines()) == 1
    assert orders.git("branch", "--list").split() == ["*", "main"]


def test_a_project_that_does_not_know_its_template_is_refused(
    growing: Project, orders: Project
) -> None:
    """The message says what to add."""
    orders.git("remote", "remove", "template")
    with pytest.raises(RefusedError, match="git remote add template ADDRESS"):
        update(orders.root)
    with pytest.raises(RefusedError, match=r"There is no \.template\.json"):
        update(growing.root)


def test_changes_in_the_project_are_refused(orders: Project) -> None:
    """Undoing the update would lose them."""
    orders.write({"notes.txt": "mine"})

    with pytest.raises(RefusedError, match="Commit or stash your changes first"):
        update(orders.root)
