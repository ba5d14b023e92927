"""The service with routes that fail, and a client of it."""

from typing import Annotated

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Query
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from example_service.core.settings import Settings
from example_service.core.settings.model import LimitSettings
from example_service.main import create_app
from tests.api.problems.failing_app import SECRET
from tests.application import Serve


class Login(BaseModel):
    """A body with a secret that must not come back."""

    model_config = ConfigDict(extra="forbid")

    user: Annotated[str, Field(max_length=8)]
    password: SecretStr
    age: Annotated[int, Field(gt=17)] = 18

    @field_validator("user")
    @classmethod
    def _known(cls, value: str) -> str:
        if value == "unknown":
            raise ValueError(f"{value} with {SECRET}")
        return value


@pytest.fixture
def app() -> FastAPI:
    """The service with routes that fail."""
    app = create_app(Settings(environment="test", limits=LimitSettings(max_body_bytes=1000)))

    @app.post("/login")
    async def login(login: Login) -> str:
        return login.user

    @app.get("/numbers")
    async def numbers(number: Annotated[int, Query(lt=10)]) -> int:
        return number

    @app.get("/both")
    async def read_both() -> str:
        return "read"

    @app.put("/both")
    async def write_both() -> str:
        return "written"

    @app.get("/raises/{status}")
    async def raises(status: int) -> None:
        raise HTTPException(status, headers={"X-Reason": "because"})

    @app.get("/plain")
    async def plain() -> PlainTextResponse:
        return PlainTextResponse("Not on a Monday.", 409, headers={"X-Reason": "because"})

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError(SECRET)

    return app


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> httpx.AsyncClient:
    """A client of the service."""
    return await serve(app)
