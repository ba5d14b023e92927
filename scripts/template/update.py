"""Apply later changes of the template to a project that was made from it.

    python -m scripts.template.update

Both versions of the template, the one that the project was made from and the newest, are renamed to
the project's name, each by its own `rename.py`. The difference between them is then applied to the
project like a commit. It is staged, and nothing is committed: `git reset --hard` undoes it.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.template.new import REMOTE
from scripts.template.project_name import RefusedError, distribution_name
from scripts.template.rename import RECORD, ROOT, run
from scripts.template.repository import git, require_clean

_COMMITTER: Final = ("-c", "user.name=template", "-c", "user.email=template@localhost")

_RENAME: Final = """
import sys
from scripts.template.rename import ROOT, parse_name, rename
rename(ROOT, parse_name(sys.argv[1], ROOT), sys.argv[2])
"""


def update(root: Path = ROOT) -> str:
    """Apply the changes of the template to the project in a folder.

    Returns:
        What to do next.

    Raises:
        RefusedError: If the project has uncommitted changes, or does not record its template.
    """
    require_clean(root)
    if not (root / RECORD).exists():
        raise RefusedError(f"There is no {RECORD}: `make new` and `make rename` write it.")
    if REMOTE not in git(root, "remote").split():
        raise RefusedError(f"Say where the template is: git remote add {REMOTE} ADDRESS")
    old: str = json.loads((root / RECORD).read_text(encoding="utf-8"))["commit"]
    git(root, "fetch", "--quiet", "--no-tags", REMOTE, "HEAD")
    new = git(root, "rev-parse", "FETCH_HEAD").strip()
    if new == old:
        return "The project has the newest version of the template."
    name = distribution_name(root)
    base = _commit(root, _renamed_tree(root, old, name))
    changed = _commit(root, _renamed_tree(root, new, name), "-p", base)
    return _apply(root, changed)


def _renamed_tree(root: Path, commit: str, name: str) -> str:
    """A version of the template with the project's name, as a tree in the project's repository."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "template"
        git(root, "worktree", "add", "--quiet", "--detach", str(folder), commit)
        try:
            _run(folder, [sys.executable, "-c", _RENAME, name, commit])
            ruff = str(Path(sys.executable).parent / "ruff")
            _run(folder, [ruff, "check", "--fix-only", "--quiet"])
            _run(folder, [ruff, "format", "--quiet"])
            git(folder, "add", "--all")
            return git(folder, "write-tree").strip()
        finally:
            git(root, "worktree", "remove", "--force", str(folder))


def _run(folder: Path, command: Sequence[str]) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RefusedError(f"The template cannot be renamed: {done.stderr.strip()}")


def _commit(root: Path, tree: str, *parents: str) -> str:
    arguments = ("commit-tree", tree, *parents, "-m", "Update from the template")
    return git(root, *_COMMITTER, *arguments).strip()


def _apply(root: Path, commit: str) -> str:
    try:
        git(root, "cherry-pick", "--no-commit", commit)
    except RefusedError:
        conflicts = git(root, "diff", "--name-only", "--diff-filter=U", "-z").split("\0")[:-1]
        if not conflicts:
            raise
        known = set(git(root, "ls-tree", "-r", "--name-only", "-z", "HEAD").split("\0"))
        kinds = {
            "Both have changed these; edit them and `git add` them": known.intersection(conflicts),
            "You have deleted these, and the template has changed them; `git rm` them, or "
            "`git add` those that you want back": set(conflicts) - known,
        }
        return "\n\n".join(
            "\n".join((f"{kind}:\n", *(f"    {name}" for name in sorted(names))))
            for kind, names in kinds.items()
            if names
        )
    return "The changes are staged. `git commit` keeps them, `git reset --hard` undoes it."


if __name__ == "__main__":
    sys.exit(run(update))
