"""The tutorial works when it is followed literally in a copy of the project."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.docs.pages import ROOT, Block, blocks_of
from tests.docs.walk import Walk

pytestmark = pytest.mark.integration

TUTORIAL = ROOT / "docs" / "tutorial.md"
MAKE_TEST = "make test ARGS="


def test_a_reader_who_follows_the_tutorial_adds_a_dependency(tmp_path: Path) -> None:
    """Its files, edits, commands and test work in this order, with the answers shown."""
    project, folder = tmp_path / "project", tmp_path / "folder"
    folder.mkdir()
    copy_of_the_project(project)
    with Walk(folder, project=project) as walk:
        for block in blocks_of(TUTORIAL):
            if block.role == "file":
                write(block, project)
            elif block.role == "edit":
                change(block, project)
            elif block.text.startswith(MAKE_TEST):
                # This environment has the development tools that the command would install.
                arguments = block.text.removeprefix(MAKE_TEST)
                walk.run(f"cd {project}\npython -m pytest -q -n0 {arguments}")
            elif block.role == "commands":
                walk.follow(block)
        walk.stop()


def test_alert_of_the_tutorial_uses_existing_metrics() -> None:
    """Its rules are valid YAML, and the service documents each metric."""
    [file] = [block for block in blocks_of(TUTORIAL) if block.language == "yaml"]
    [group] = YAML(typ="safe").load(file.text)["groups"]
    metrics = {name for rule in group["rules"] for name in re.findall(r"\w+_total", rule["expr"])}
    service = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")

    assert metrics
    assert [name for name in metrics if f"| `{name}` |" not in service] == []


def copy_of_the_project(target: Path) -> None:
    """Copy what git would clone, so that the tutorial does not change this project."""
    listing = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def write(block: Block, project: Path) -> None:
    """Write the file in a block, with the name from its first line."""
    name = block.text.split("\n", 1)[0].removeprefix("# ")
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text(block.text)


def change(block: Block, project: Path) -> None:
    """Replace the lines with a minus in a file by those with a plus."""
    first, *lines = block.text.splitlines()
    path = project / first.removeprefix("--- ")
    before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    after = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    text = path.read_text()
    assert text.count(before) == 1, f"{block}: {path} is not as the tutorial shows it"
    path.write_text(text.replace(before, after))
