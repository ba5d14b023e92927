"""Allows the web pages of some origins to call the service (CORS)."""

from typing import Any

from fastapi.middleware.cors import CORSMiddleware

from example_service.core.settings.types import plain_origin


class OriginsMiddleware(CORSMiddleware):
    """Recognizes an origin in any notation: in capital letters, and with its default port.

    A preflight request may have an empty list of headers, or empty members in it. The parameters
    are those of `CORSMiddleware`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_headers = [*self.allow_headers, ""]

    def is_allowed_origin(self, origin: str) -> bool:
        """Whether pages of this origin may call the service."""
        return super().is_allowed_origin(plain_origin(origin))
