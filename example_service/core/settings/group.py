"""The base class of groups of settings."""

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """A group of settings. It is immutable and rejects unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
