"""`make without`: what it removes, changes and refuses."""

import pytest

from scripts.template import without as command
from scripts.template.parts import Edit, Part
from scripts.template.project_name import RefusedError
from scripts.template.without import without
from tests.template.conftest import Project

MAIN = """\
from paper_mill import glue
from paper_mill.wood import saw

PARTS = [glue, saw]


def press() -> None:
    print("press")


# Only for wood.
@saw
def cut() -> None:
    print("cut")
"""
PAGE = """\
# Paper

- [Wood](wood.md): where it
  comes from.
- [Glue](glue.md): sticks.

See [wood](wood.md#trees), [glue](glue.md) and ![a picture](../picture.png).

```text
paper_mill/
├── main.py    all
├── wood/      the wood
│   └── saw.py
└── glue.py
```

```text
main ──> wood, glue, pot
wood ──> glue
glue ──> pot
```

| tree | height |
|---|---|
| oak | 30 m |
| oak gall | 2 cm |

## Saws

They need [wood](wood.md).

## Pots

For glue.
"""


@pytest.fixture
def mill(template: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with wood, paint and glue; paint needs wood, and they share a line."""
    template.write(
        {
            "paper_mill/main.py": MAIN,
            "paper_mill/wood/saw.py": "from paper_mill import glue\n\nsaw = len\n",
            "paper_mill/glue.py": "import paper_mill.pot\n",
            "paper_mill/pot.py": "",
            "docs/page.md": PAGE,
            "docs/wood.md": "# Wood\n\n## Trees\n",
            "docs/glue.md": "# Glue\n",
            "colours.txt": "red\nbrown, for wood\nblue\n",
            "paint.txt": "paint",
        }
    )
    template.commit("Begin to make paper")
    wood = Part(
        name="wood",
        what="the wood",
        first=("paint",),
        delete=("paper_mill/wood", "docs/wood.md"),
        pieces=(
            ("docs/page.md", "#saws"),
            ("docs/page.md", "|oak"),
            ("paper_mill/main.py", "::cut"),
        ),
        edits=(
            Edit("paper_mill/main.py", ("-from paper_mill.wood import saw",)),
            Edit("paper_mill/main.py", ("-PARTS = [glue, saw]", "+PARTS = [glue]")),
            Edit("colours.txt", (" red", "-brown, for wood")),
        ),
    )
    paint = Part("paint", "the paint", (), ("paint.txt",), (), (Edit("colours.txt", ("-red",)),))
    monkeypatch.setattr(command, "load_parts", lambda: {"paint": paint, "wood": wood})
    return template


def test_files_of_a_part_are_deleted_with_folders_that_become_empty(mill: Project) -> None:
    """They are staged as deleted, and nothing is committed."""
    before = mill.git("rev-parse", "HEAD")

    said = without("paint wood", mill.root)

    assert "`git reset --hard` undoes it" in said
    assert not (mill.root / "paper_mill" / "wood").exists()
    assert {"docs/wood.md", "paint.txt", "paper_mill/wood/saw.py"}.isdisjoint(mill.files())
    assert mill.git("rev-parse", "HEAD") == before
    assert mill.read("formatted.txt") == "formatted\n"


def test_lines_and_definitions_of_a_part_are_removed_from_other_files(mill: Project) -> None:
    """Decorators and comments go as well, even if another part has removed lines nearby."""
    without("wood,paint", mill.root)

    main = mill.read("paper_mill/main.py")
    assert "PARTS = [glue]\n" in main
    assert "saw" not in main
    assert "Only for wood" not in main
    assert 'print("press")\n' in main
    assert mill.read("colours.txt") == "blue\n"


def test_mentions_of_a_part_are_removed_from_pages(mill: Project) -> None:
    """These are sections, rows, list items with a link to its page, links, trees and drawings."""
    without("paint wood", mill.root)

    page = mill.read("docs/page.md")
    assert "- [Glue](glue.md): sticks.\n\nSee wood, [glue](glue.md) and ![a picture]" in page
    assert "comes from" not in page
    assert "## Saws" not in page
    assert "|---|---|\n| oak gall |" in page
    assert "## Pots" in page
    assert "├── main.py    all\n└── glue.py\n" in page
    assert "main ──> glue\nglue ──> pot\n" in page


def test_a_part_can_be_removed_later(mill: Project) -> None:
    """The changes of the first removal do not prevent the second."""
    without("paint", mill.root)
    mill.commit("Remove the paint")

    assert without("wood", mill.root).startswith("wood: removed.")
    assert mill.read("colours.txt") == "blue\n"


def test_a_change_whose_lines_another_part_took_is_done(mill: Project) -> None:
    """Empty lines and fences are left in the page, but they belong to other blocks."""
    mill.write(
        {
            "docs/page.md": PAGE.replace(
                "\nSee [wood]", "\nRun\n\n```sh\nsaw wood\n```\n\nSee [wood]"
            )
        }
    )
    mill.commit("Show how to saw")
    lines = ("-Run", "-", "-```sh", "-saw wood", "-```", "-")
    shown = Edit("docs/page.md", lines)
    taken = Part("paint", "", (), ("paint.txt",), (), (shown,))
    again = Part("wood", "", (), ("docs/wood.md",), (), (shown,))

    assert command.remove(mill.root, taken, [taken, again]) == []
    assert command.remove(mill.root, again, [taken, again]) == []
    assert mill.read("docs/page.md") == PAGE


def test_a_change_that_does_not_fit_must_be_made_by_hand(mill: Project) -> None:
    """Everything else is done, and the message shows the change."""
    mill.write({"paper_mill/main.py": MAIN.replace("[glue, saw]", "[saw, glue]")})
    mill.commit("Saw first")

    said = without("paint wood", mill.root)

    assert "By hand:\n\n--- paper_mill/main.py\n-PARTS = [glue, saw]\n+PARTS = [glue]" in said
    assert "from paper_mill.wood" not in mill.read("paper_mill/main.py")
    assert "docs/wood.md" not in mill.files()


@pytest.mark.parametrize(
    ("names", "refusal"),
    [
        ("stone", "PART=stone is not a part. The parts are: paint, wood."),
        ("paint, stone", "PART=stone is not a part"),
        ("wood", 'PART=wood is needed by paint. Remove both: make without PART="paint wood"'),
    ],
)
def test_parts_that_cannot_be_removed_are_refused(mill: Project, names: str, refusal: str) -> None:
    """One line gives the reason, and nothing changes."""
    with pytest.raises(RefusedError, match="^" + refusal.replace("(", "\\(")):
        without(names, mill.root)

    assert mill.git("status", "--porcelain") == ""


def test_a_part_that_was_removed_already_is_refused(mill: Project) -> None:
    """The operator may have meant another part."""
    without("paint", mill.root)
    mill.commit("Remove the paint")

    with pytest.raises(RefusedError, match="PART=paint has been removed already"):
        without("paint", mill.root)


def test_uncommitted_changes_are_refused(mill: Project) -> None:
    """Git could not restore them if the removal were undone."""
    mill.write({"notes.txt": "mine"})

    with pytest.raises(RefusedError, match="Commit or stash your changes first"):
        without("paint", mill.root)

    assert "paint.txt" in mill.files()


def test_without_a_name_the_parts_are_listed_with_their_lines(mill: Project) -> None:
    """The list shows lines of code, tests and other files, and omits removed parts."""
    rows = {line.split()[0]: line.split()[1:4] for line in without("", mill.root).splitlines()}

    assert rows == {
        "PART": ["code", "tests", "other"],
        "paint": ["0", "0", "1"],
        "wood": ["8", "0", "9"],
    }


def test_a_change_that_is_listed_twice_does_not_fit(mill: Project) -> None:
    """The second one would be left to make by hand."""
    edit = Edit("colours.txt", ("-red",))
    part = Part("paint", "", (), (), (), (edit, edit))

    assert len(part.misfits(mill.root)) == 1


def test_a_change_may_fit_only_after_another_part(mill: Project) -> None:
    """A list may name lines that the parts in `first` write."""
    paint = Part("paint", "", (), (), (), (Edit("colours.txt", ("-red", "+rust")),))
    wood = Part("wood", "", ("paint",), (), (), (Edit("colours.txt", ("-rust",)),))

    assert wood.misfits(mill.root, [paint]) == []
    assert wood.misfits(mill.root) != []


def test_a_list_that_does_not_fit_says_what_is_missing(mill: Project) -> None:
    """Files, pieces, and changes whose lines are not there once."""
    part = Part(
        name="wood",
        what="the wood",
        first=(),
        delete=("paper_mill/wood", "bark.txt"),
        pieces=(("docs/page.md", "#saws"), ("docs/page.md", "#bark"), ("gone.md", "#bark")),
        edits=(Edit("colours.txt", ("-blue",)), Edit("colours.txt", ("-green", "+blue"))),
    )

    assert part.misfits(mill.root) == [
        "there is no bark.txt",
        "there is no docs/page.md#bark",
        "there is no gone.md#bark",
        f"these lines, without those with a plus, are not there once:\n{part.edits[1]}",
    ]
