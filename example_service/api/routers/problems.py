"""The descriptions of problem types, as JSON for programs and as HTML pages for people."""

import re
from html import escape
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel

from example_service.api.problems import catalogue
from example_service.api.problems.answers import ProblemError
from example_service.api.problems.catalogue import ProblemType
from example_service.api.problems.openapi import problem_responses

router = APIRouter(prefix="/problems", tags=["problems"])

_TWO_FORMS = {"Vary": "Accept"}
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>:root {{ color-scheme: light dark }}
body {{ font: 1rem/1.5 system-ui; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}
code {{ font: 0.9em ui-monospace, monospace; padding: 0.1em 0.3em; border-radius: 0.25em;
background: color-mix(in srgb, currentcolor 12%, transparent) }}
dt {{ font-weight: bold; margin-top: 1rem }}</style>
<h1>{title}</h1>
{content}
"""


class ProblemDescription(BaseModel):
    """A problem type, and what to do about it."""

    type: str
    title: str
    status: int
    meaning: str
    cause: str
    what_to_do: str


@router.head("", include_in_schema=False)
@router.get("", operation_id="list_problems", response_model=list[ProblemDescription])
async def list_problems(request: Request) -> Response:
    """List the problem types of this service, except those of plain HTTP errors."""
    types = catalogue.defined_problem_types()
    if not _wants_html(request):
        described = [_described(each, request).model_dump() for each in types]
        return JSONResponse(described, headers=_TWO_FORMS)
    links = "".join(
        f'<li><a href="{_described(each, request).type}">{escape(each.title)}</a> '
        f"({each.status})</li>\n"
        for each in types
    )
    page = _PAGE.format(title="Problems", content=f"<ul>\n{links}</ul>")
    return HTMLResponse(page, headers=_TWO_FORMS)


@router.head("/{slug}", include_in_schema=False)
@router.get(
    "/{slug}",
    operation_id="read_problem",
    response_model=ProblemDescription,
    responses=problem_responses(catalogue.NOT_FOUND),
)
async def show_problem(
    request: Request,
    slug: Annotated[
        str, Path(description="Last part of the type.", examples=["circuit-breaker-open"])
    ],
) -> Response:
    """Explain a problem type."""
    problem_type = catalogue.find_problem_type(slug)
    if problem_type is None:
        raise ProblemError(catalogue.NOT_FOUND)
    description = _described(problem_type, request)
    if not _wants_html(request):
        return JSONResponse(description.model_dump(), headers=_TWO_FORMS)
    rows = (
        ("Status", str(description.status)),
        ("Meaning", description.meaning),
        ("Cause", description.cause),
        ("What to do", description.what_to_do),
    )
    terms = "".join(f"<dt>{term}</dt><dd>{_html(text)}</dd>\n" for term, text in rows)
    back = f'<p><a href="{_prefix(request)}/problems">All problems</a></p>'
    page = _PAGE.format(title=escape(description.title), content=f"<dl>\n{terms}</dl>\n{back}")
    return HTMLResponse(page, headers=_TWO_FORMS)


def _html(text: str) -> str:
    """Convert a text of the catalogue to HTML, with the parts in backquotes as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _prefix(request: Request) -> str:
    """Return the path prefix under which a proxy serves the service. Empty if there is none."""
    prefix: str = request.scope.get("root_path", "")
    return prefix.rstrip("/")


def _described(problem_type: ProblemType, request: Request) -> ProblemDescription:
    return ProblemDescription(
        type=f"{_prefix(request)}/problems/{problem_type.slug}",
        title=problem_type.title,
        status=problem_type.status,
        meaning=problem_type.meaning,
        cause=problem_type.cause,
        what_to_do=problem_type.remedy,
    )


def _wants_html(request: Request) -> bool:
    """Whether the client asks for HTML like a browser. JSON is sent to all others."""
    accepted = request.headers.get("accept", "").split(",")
    kinds = [part.partition(";")[0].strip().lower() for part in accepted]
    return "text/html" in kinds and "application/json" not in kinds
