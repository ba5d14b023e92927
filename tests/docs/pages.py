"""The project's Markdown pages: their code blocks and tables.

The role of a code block decides how it is executed:

- `program`: a complete Python program. A `text` block directly below shows its output.
- `commands`: shell commands. A `text`, `json` or `http` block directly below shows
  the answer.
- `containers`: commands that call `docker`. They run with the tests of the image.
- `output`: a block that shows the answer to the block above it.
- `tree`: a `text` block that draws folders and files.
- `statements`: SQL for operators to run on the database of payments.
- `file`: a complete file for a copy of the project; a comment in its first line has the name.
- `edit`: removed and added lines of a file, whose name is in the first line; also for a copy.
- `diagram`: states and transitions in Mermaid syntax.
- `signature`: that of a public name. `test_api_reference.py` compares it with the code.
- `proxy`: the configuration of a reverse proxy. Its limits are compared with the service's.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sybil import Document
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from scripts.template.pieces import anchor_of

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
MARKDOWN_FILES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))

_OUTPUT_LANGUAGES = {
    "program": {"text"},
    "commands": {"text", "json", "http"},
    "containers": {"text"},
}
_fenced_blocks = RawFencedCodeBlockLexer(
    re.compile(r"(?P<language>.*)$\n?", re.MULTILINE),
    mapping={"language": "language", "source": "source"},
)


@dataclass
class Block:
    """A fenced code block.

    Attributes:
        page: The file that contains it.
        line: The line of its opening fence, counting from 1.
        language: The language after the fence; empty if there is none.
        text: Its content.
        role: One of the roles listed above, or None.
        output: The block directly below that shows its answer, or None.
    """

    page: Path
    line: int
    language: str
    text: str
    role: str | None
    output: "Block | None" = None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page, from top to bottom."""
    document = Document(page.read_text(encoding="utf-8"), str(page))
    found: list[Block] = []
    end = 0
    for region in _fenced_blocks(document):
        is_adjoining = bool(found) and not document.text[end : region.start].strip()
        above = found[-1] if is_adjoining else None
        language, text = region.lexemes["language"].strip(), str(region.lexemes["source"])
        line = document.text.count("\n", 0, region.start) + 1
        block = Block(page, line, language, text, _role(language, text, above))
        if above is not None and block.role == "output":
            above.output = block
        found.append(block)
        end = region.end
    return found


def blocks(role: str) -> list[Block]:
    """Every code block with this role."""
    return [block for page in MARKDOWN_FILES for block in blocks_of(page) if block.role == role]


def _role(language: str, text: str, above: Block | None) -> str | None:
    if above is not None and language in _OUTPUT_LANGUAGES.get(above.role or "", ()):
        return "output"
    if language == "text":
        if " ──> " in text:
            return "imports"
        return "tree" if text.split("\n", 1)[0].endswith("/") else None
    if re.match(r"# [\w/.-]+/[\w-]+\.(py|yml)\n", text):
        return "file"
    if language == "sh":
        return "containers" if re.search(r"\bdocker (?=[a-z])", text) else "commands"
    roles = {
        "python": "program",
        "mermaid": "diagram",
        "sql": "statements",
        "nginx": "proxy",
        "diff": "edit",
        "pyi": "signature",
    }
    return roles.get(language)


def table_rows(page: Path, marker: str) -> list[list[str]]:
    """The cells of the table between `<!-- marker -->` and the next `<!-- end -->`.

    Cells that consist of code alone lose their backquotes, and the header row is omitted.
    """
    _, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {marker} -->\n")
    table, end, _ = rest.partition("<!-- end -->")
    assert end, f"{page.name} has no table marked {marker!r}"
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[plain(cell) for cell in line.strip("|").split("|")] for line in lines[2:]]


def plain(cell: str) -> str:
    """A cell, without its backquotes if it consists of code alone."""
    code = re.fullmatch(r"`([^`]*)`", cell.strip())
    return code[1] if code else cell.strip()


def broken_links(page: Path) -> list[str]:
    """The relative links of a page to files or headings that do not exist."""
    broken = []
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        linked = (page.parent / target) if target else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(f"{page.name}: {target}#{anchor}")
    return broken


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub generates for the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {anchor_of(heading) for heading in headings}
