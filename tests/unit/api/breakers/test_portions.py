"""Large models are serialized and parsed entry by entry, with the same result as in one call."""

import pytest
from pydantic import BaseModel

from example_service.api.breakers.portions import dumped, parsed


class Entry(BaseModel):
    """One entry of many."""

    count: int
    note: str | None = None


class Whole(BaseModel):
    """A model with many entries."""

    before: list[int]
    entries: dict[str, Entry]
    after: dict[str, int] = {}


WHOLE = Whole(
    before=[1],
    entries={'a "quoted" näme': Entry(count=1), "b": Entry(count=2, note='"entries":{}')},
    after={"entries": 3},
)


@pytest.mark.parametrize("whole", [WHOLE, Whole(before=[], entries={})])
def test_the_text_is_the_same_as_from_a_single_call(whole: Whole) -> None:
    """Members keep their order, and unset ones are omitted."""
    text = dumped(whole, "entries")

    assert Whole.model_validate_json(text) == whole
    assert text.startswith('{"before":')
    assert ("after" in text) is ("after" in whole.model_fields_set)


def test_no_call_writes_more_than_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call blocks the event loop until it is done, so it must be short."""
    written: list[Entry] = []

    def write(entry: Entry, **_: bool) -> str:
        written.append(entry)
        return "{}"

    monkeypatch.setattr(Entry, "model_dump_json", write)

    dumped(WHOLE, "entries")

    assert written == list(WHOLE.entries.values())


def test_the_written_text_can_be_read_again() -> None:
    """Workers read each other's reports."""
    assert parsed(dumped(WHOLE, "entries"), Whole, "entries", Entry) == WHOLE


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"before": [], "entries": []}', '{"before": [], "entries": {"a": {}}}'],
)
def test_invalid_text_is_an_error(text: str) -> None:
    """The file may have been damaged, or written by another version."""
    with pytest.raises(ValueError):  # noqa: PT011 - that of JSON or of pydantic
        parsed(text, Whole, "entries", Entry)
