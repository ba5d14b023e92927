"""A page on which people watch the circuits change.

It is one file that needs nothing from anywhere else, and asks `/health/circuit-breakers` every
two seconds: what it shows, programs can have as well.
"""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse

# Left out of the OpenAPI document: it is for people, not for clients of the API.
router = APIRouter(include_in_schema=False)

_PAGE: Final = files("example_service.api").joinpath("dashboard.html").read_text(encoding="utf-8")


def _digests(tag: str) -> str:
    """Name the page's own scripts or styles to the browser, which then accepts no others."""
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", _PAGE, re.DOTALL)
    digests = (hashlib.sha256(content.encode()).digest() for content in contents)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "connect-src 'self'",
            "img-src data:",
            f"script-src {_digests('script')}",
            f"style-src {_digests('style')}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
}


@router.api_route("/dashboard", methods=["GET", "HEAD"])
async def dashboard() -> HTMLResponse:
    """Show the circuits of the worker that answers, and go on showing them."""
    return HTMLResponse(_PAGE, headers=_HEADERS)


@router.api_route("/", methods=["GET", "HEAD"])
async def root() -> RedirectResponse:
    """Lead whoever types nothing but the address to the dashboard.

    Relative to that, for a proxy may have put the service below a path of its own.
    """
    return RedirectResponse("dashboard")
