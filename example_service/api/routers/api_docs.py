"""The pages that document the API: Swagger UI at `/docs`, ReDoc at `/redoc`.

Their scripts come from the package `fastapi-standalone-docs` instead of a CDN, so that the pages
work without internet access. All URLs in them are relative, because a proxy may serve the service
under a path prefix.
"""

from typing import Final

from fastapi import APIRouter
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from example_service.api.page_policy import page_headers

OPENAPI_URL: Final = "/openapi.json"

router = APIRouter(include_in_schema=False)

_TITLE: Final = "Example service: the API"
_ICON: Final = "data:,"
_PACKAGE: Final = "fastapi_standalone_docs"

_SWAGGER_UI: Final = bytes(
    get_swagger_ui_html(
        openapi_url=OPENAPI_URL.removeprefix("/"),
        title=_TITLE,
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url=_ICON,
    ).body
).decode()
_REDOC: Final = bytes(
    get_redoc_html(
        openapi_url=OPENAPI_URL.removeprefix("/"),
        title=_TITLE,
        redoc_js_url="redoc/redoc.standalone.js",
        redoc_favicon_url=_ICON,
        with_google_fonts=False,
    ).body
).decode()
_SWAGGER_UI_HEADERS: Final = page_headers(_SWAGGER_UI)
# ReDoc inserts inline styles and runs its search in a worker created from a blob. A hash would
# disable 'unsafe-inline', so the page's own style has none.
_REDOC_HEADERS: Final = page_headers(
    "", {"style-src": "'unsafe-inline'", "worker-src": "blob:", "child-src": "blob:"}
)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def swagger_ui() -> HTMLResponse:
    """Serve the interactive documentation of the API."""
    return HTMLResponse(_SWAGGER_UI, headers=_SWAGGER_UI_HEADERS)


@router.api_route("/redoc", methods=["GET", "HEAD"])
async def redoc() -> HTMLResponse:
    """Serve the reference documentation of the API."""
    return HTMLResponse(_REDOC, headers=_REDOC_HEADERS)


router.mount("/docs", StaticFiles(packages=[(_PACKAGE, "static/swagger")]))
router.mount("/redoc", StaticFiles(packages=[(_PACKAGE, "static/redoc")]))
