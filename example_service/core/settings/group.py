"""What groups of settings have in common."""

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """A group of settings: read-only, and with no field that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
