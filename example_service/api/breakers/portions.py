"""Converts large models to and from JSON one entry at a time.

A call into pydantic holds the GIL until it returns, so even in a thread it blocks the event loop.
With thousands of breakers, a single call would block it for too long.
"""

import json
from typing import Any, TypeVar

from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound=BaseModel)


def dumped(model: BaseModel, large: str) -> str:
    """Return a model as JSON, without its unset fields.

    Args:
        model: The model to convert.
        large: The name of the field to write one entry at a time: a dictionary of models. An empty
            object of the same name must not come before it.
    """
    entries: dict[str, BaseModel] = getattr(model, large)
    rest = model.model_copy(update={large: {}}).model_dump_json(exclude_unset=True)
    written = ",".join(
        f"{json.dumps(name)}:{entry.model_dump_json(exclude_unset=True)}"
        for name, entry in entries.items()
    )
    return rest.replace(f'"{large}":{{}}', f'"{large}":{{{written}}}', 1)


def parsed(text: str, model: type[ModelT], large: str, entry: type[BaseModel]) -> ModelT:
    """Parse JSON that `dumped` returned.

    Args:
        text: The JSON.
        model: The class of the model.
        large: The name of the field to read one entry at a time.
        entry: The class of an entry of that field.

    Raises:
        ValueError: The text is not valid JSON or does not match the model.
    """
    members: Any = json.loads(text)
    if not isinstance(members, dict) or not isinstance(members.get(large), dict):
        raise ValueError(f"is not a JSON object with a member {large}")  # noqa: TRY004 - bad JSON
    entries = {name: entry.model_validate(value) for name, value in members[large].items()}
    return model.model_validate({**members, large: entries})
