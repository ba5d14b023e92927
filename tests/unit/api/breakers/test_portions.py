"""Large models are written and read entry by entry, with the result of a single call."""

import pytest
from pydantic import BaseModel

from example_service.api.breakers.portions import dumped, parsed


class Entry(BaseModel):
    """One of many."""

    count: int
    note: str | None = None


class Whole(BaseModel):
    """Something with many of them."""

    before: list[int]
    entries: dict[str, Entry]
    after: dict[str, int] = {}


WHOLE = Whole(
    before=[1],
    entries={'a "quoted" näme': Entry(count=1), "b": Entry(count=2, note='"entries":{}')},
    after={"entries": 3},
)


@pytest.mark.parametrize("whole", [WHOLE, Whole(before=[], entries={})])
def test_the_text_is_what_a_single_call_writes(whole: Whole) -> None:
    """Members keep their order, and what is unset is left out."""
    text = dumped(whole, "entries")

    assert Whole.model_validate_json(text) == whole
    assert text.startswith('{"before":')
    assert ("after" in text) is ("after" in whole.model_fields_set)


def test_no_call_writes_more_than_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call keeps the interpreter until it is done, and the event loop waits for it."""
    written: list[Entry] = []

    def write(entry: Entry, **_: bool) -> str:
        written.append(entry)
        return "{}"

    monkeypatch.setattr(Entry, "model_dump_json", write)

    dumped(WHOLE, "entries")

    assert written == list(WHOLE.entries.values())


def test_what_was_written_is_read_again() -> None:
    """The other workers read what one has written."""
    assert parsed(dumped(WHOLE, "entries"), Whole, "entries", Entry) == WHOLE


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"before": [], "entries": []}', '{"before": [], "entries": {"a": {}}}'],
)
def test_what_is_no_such_model_is_an_error(text: str) -> None:
    """A file that another program has damaged, or another version has written."""
    with pytest.raises(ValueError):  # noqa: PT011 - that of JSON or of pydantic
        parsed(text, Whole, "entries", Entry)
