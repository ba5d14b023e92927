"""Large models from and to JSON, entry by entry.

One call into pydantic keeps the interpreter until it is done, even from a thread, and the event
loop waits for it. With thousands of breakers that would take too long.
"""

import json
from typing import Any, TypeVar

from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound=BaseModel)


def dumped(model: BaseModel, large: str) -> str:
    """The JSON of a model, without what is unset.

    Args:
        model: What is written.
        large: Name of the first member that may be an empty object: a dictionary of models, which
            is written entry by entry.
    """
    entries: dict[str, BaseModel] = getattr(model, large)
    rest = model.model_copy(update={large: {}}).model_dump_json(exclude_unset=True)
    written = ",".join(
        f"{json.dumps(name)}:{entry.model_dump_json(exclude_unset=True)}"
        for name, entry in entries.items()
    )
    return rest.replace(f'"{large}":{{}}', f'"{large}":{{{written}}}', 1)


def parsed(text: str, model: type[ModelT], large: str, entry: type[BaseModel]) -> ModelT:
    """The model that a JSON text has.

    Args:
        text: What `dumped` wrote.
        model: The class of the whole.
        large: Name of the member that is read entry by entry.
        entry: The class of one entry.

    Raises:
        ValueError: The text is no such model.
    """
    members: Any = json.loads(text)
    if not isinstance(members, dict) or not isinstance(members.get(large), dict):
        raise ValueError(f"is no JSON object with a member {large}")  # noqa: TRY004 - of the text
    entries = {name: entry.model_validate(one) for name, one in members[large].items()}
    return model.model_validate({**members, large: entries})
