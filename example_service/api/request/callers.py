"""Authenticates callers: every path below `/api` requires a key, sent as a bearer token."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from example_service.api.problems import catalogue
from example_service.api.problems.answers import Problem
from example_service.api.problems.openapi import problem_responses
from example_service.api.request.bearer import bearer_token
from example_service.core import context
from example_service.core.digests import has_digest

PREFIX: Final = "/api"
"""Every request below this path needs a key."""

READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""The methods that a read-only caller may use."""

IN_PROCESS: Final = "caller"
"""The key of an ASGI scope with the name of a caller in this process. A client cannot set it."""

_MAX_NAME_LENGTH: Final = 64
_SCHEME: Final = "api"
_CHALLENGE: Final = 'Bearer realm="api"'
_NO_KEY: Final = Problem(catalogue.UNAUTHORIZED, headers={"WWW-Authenticate": _CHALLENGE})
_UNKNOWN_KEY: Final = Problem(
    catalogue.UNAUTHORIZED,
    headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
)
_MAY_ONLY_READ: Final = Problem(
    catalogue.FORBIDDEN,
    headers={"WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="write"'},
)


@dataclass(frozen=True, slots=True)
class Caller:
    """A program or a team that may call the API.

    Attributes:
        name: Its name in logs and as the owner of what it creates: 1 to 64 printable characters.
        may_write: Whether it may use methods other than GET, HEAD and OPTIONS.

    Raises:
        ValueError: If the name is empty, too long or not printable.
    """

    name: str
    may_write: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= _MAX_NAME_LENGTH or not self.name.isprintable():
            raise ValueError(f"name must be 1 to {_MAX_NAME_LENGTH} printable characters")


FindCaller: TypeAlias = Callable[[bytes], Awaitable[Caller | None]]
"""Returns the caller with a bearer token, or None if the token is unknown."""


def callers_by_key(entries: Sequence[str]) -> FindCaller:
    """Make a function that finds callers by the keys of `API__KEYS`.

    Args:
        entries: `NAME:DIGEST`, or `NAME:DIGEST:read` for a read-only caller, with the SHA-256
            digest of the key in hexadecimal. Several entries may have the same name.
    """
    callers = []
    for entry in entries:
        name, digest, *rights = entry.split(":")
        callers.append((bytes.fromhex(digest), Caller(name, may_write=not rights)))

    async def find_caller(token: bytes) -> Caller | None:
        # Every key is compared, so that the time does not reveal which one matched.
        found = [caller for digest, caller in callers if has_digest(token, digest)]
        return found[0] if found else None

    return find_caller


class CallersMiddleware:
    """Refuses requests below `/api` without a valid key, and stores the name of the caller.

    The name is in `core.context.caller` while the request is served. CORS preflight requests have
    no key, so an outer middleware has to respond to them.

    Args:
        app: The application to wrap.
        find_caller: Returns the caller with a bearer token, or None if the token is unknown.
    """

    def __init__(self, app: ASGIApp, *, find_caller: FindCaller) -> None:
        self._app = app
        self._find_caller = find_caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse a request."""
        refusal = None
        if scope["type"] != "lifespan" and _is_below_prefix(scope):
            refusal = await self._check(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal.response(scope)(scope, receive, send)

    async def _check(self, scope: Scope) -> Problem | None:
        """Store the caller of a request. Return the problem if the request must be refused."""
        if (name := scope.get(IN_PROCESS)) is not None:
            context.caller.set(name)
            return None
        if (token := bearer_token(scope)) is None:
            return _NO_KEY
        if (caller := await self._find_caller(token)) is None:
            return _UNKNOWN_KEY
        context.caller.set(caller.name)
        # A WebSocket has no method, and its client can send data, so it requires `may_write`.
        may_pass = caller.may_write or scope.get("method") in READING_METHODS
        return None if may_pass else _MAY_ONLY_READ


def _is_below_prefix(scope: Scope) -> bool:
    """Whether the path is below the prefix. Like the router, it strips the root path first."""
    path, root_path = scope["path"], scope.get("root_path", "")
    if root_path and (path == root_path or path.startswith(f"{root_path}/")):
        path = path[len(root_path) :]
    return bool(path == PREFIX or path.startswith(f"{PREFIX}/"))


def document_keys(app: FastAPI) -> None:
    """Document which operations need a key, and the problems they respond with otherwise."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemes = document["components"].setdefault("securitySchemes", {})
        schemes[_SCHEME] = {"type": "http", "scheme": "bearer"}
        for path, operations in document["paths"].items():
            if path.startswith(f"{PREFIX}/"):
                for method, operation in operations.items():
                    _require_key(method.upper(), operation)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _require_key(method: str, operation: dict[str, Any]) -> None:
    kinds = [catalogue.UNAUTHORIZED]
    if method not in READING_METHODS:
        kinds.append(catalogue.FORBIDDEN)
    added = {str(status): response for status, response in problem_responses(*kinds).items()}
    operation["security"] = [{_SCHEME: []}]
    operation["responses"] = dict(sorted({**operation["responses"], **added}.items()))
