"""A small template from which projects are created."""

from pathlib import Path

import pytest

from scripts.template.repository import git


class Project:
    """A git repository in a folder."""

    def __init__(self, root: Path) -> None:
        """Use the repository in this folder, which need not exist yet."""
        self.root = root

    def write(self, texts: dict[str, str]) -> None:
        """Write files, by their names."""
        for name, text in texts.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def read(self, name: str) -> str:
        """The content of a file."""
        return (self.root / name).read_text()

    def git(self, *arguments: str) -> str:
        """Run git in the repository, with a committer's name."""
        committer = ("-c", "user.name=Committer", "-c", "user.email=committer@example.com")
        return git(self.root, *committer, *arguments)

    def commit(self, subject: str) -> str:
        """Commit everything, and return the hash of the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", subject)
        return self.git("rev-parse", "HEAD").strip()

    def files(self) -> set[str]:
        """The names of the files that git tracks."""
        return set(self.git("ls-files").splitlines())


MAKEFILE = "format:\n\t@echo formatted >formatted.txt\n"
"""A fast fake formatter that leaves a trace."""


@pytest.fixture
def template(tmp_path: Path) -> Project:
    """A template called `paper-mill`."""
    project = Project(tmp_path / "template")
    project.write(
        {
            "pyproject.toml": '[project]\nname = "paper-mill"\n',
            "paper_mill/main.py": 'TITLE = "Paper mill"\n',
            "paper_mill/data/paper_mill.txt": "paper_mill paper-mill PaperMill\n",
            ".hidden/paper-mill.conf": "the paper mill\n",
            ".gitignore": "__pycache__\n",
            "Makefile": MAKEFILE,
        }
    )
    (project.root / "picture.png").write_bytes(b"\x89PNG\0paper-mill\xff")
    project.git("init", "--quiet", "--initial-branch=main")
    project.commit("Begin")
    return project
