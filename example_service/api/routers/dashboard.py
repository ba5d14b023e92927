"""The dashboard page, and the event stream that keeps it up to date.

The page itself contains no data, so it is served without a token, which a browser could not send
anyway. In production, the stream requires the admin token. The page reads the stream with `fetch`,
because `EventSource` cannot send a token.
"""

from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.staticfiles import StaticFiles

from example_service.api.dashboard.feed import MAX_PAGES, Feed
from example_service.api.dependencies import require_admin_token
from example_service.api.page_policy import page_headers
from example_service.api.problems import catalogue
from example_service.api.problems.answers import ProblemError
from example_service.api.services import services_of

# Not in the OpenAPI document, because it is for people instead of API clients.
router = APIRouter(include_in_schema=False)

_PACKAGE: Final = "example_service.api.dashboard"
_PAGE: Final = files(_PACKAGE).joinpath("page/index.html").read_text(encoding="utf-8")
_HEADERS: Final = page_headers(_PAGE)


async def get_feed(request: Request) -> Feed:
    """Return the source of messages for the pages.

    Raises:
        ProblemError: If the token is missing or wrong in production, or if too many pages are open.
    """
    services = services_of(request)
    if services.settings.environment == "production":
        await require_admin_token(request)
    if services.dashboard.pages >= MAX_PAGES:
        raise ProblemError(catalogue.OVERLOADED, headers={"Retry-After": "5"})
    return services.dashboard


@router.api_route("/dashboard", methods=["GET", "HEAD"])
async def dashboard() -> HTMLResponse:
    """Show the circuits of all workers, live."""
    return HTMLResponse(_PAGE, headers=_HEADERS)


@router.get("/dashboard/events", response_class=EventSourceResponse)
async def events(feed: Annotated[Feed, Depends(get_feed)]) -> AsyncIterator[ServerSentEvent]:
    """Send all data once, then the changes."""
    async for message in feed.messages():
        yield ServerSentEvent(raw_data=message)


@router.api_route("/", methods=["GET", "HEAD"])
async def root(request: Request) -> RedirectResponse:
    """Redirect `/` to the dashboard.

    If no path prefix is known, the URL is relative, because there may still be one.
    """
    prefix = request.scope.get("root_path")
    return RedirectResponse(f"{prefix}/dashboard" if prefix else "dashboard")


router.mount("/dashboard", StaticFiles(packages=[(_PACKAGE, "page")]))
