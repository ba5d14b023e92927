"""The settings of the sandbox, which production refuses."""

from collections.abc import Iterator

from pydantic import Field

from example_service.core.exceptions import SettingProblem
from example_service.core.settings.group import Group
from example_service.core.settings.model import ServiceSettings
from example_service.core.settings.types import HTTPURL
from example_service.sandbox.modes import MAX_SEED


class SandboxSettings(Group):
    """The payment provider that misbehaves on request, in development only."""

    control_url: HTTPURL | None = Field(
        default=None,
        description="URL of the sandbox's control API; `serve` sets it for its workers.",
        examples=["http://127.0.0.1:9000"],
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="The same seed gives the same faults in the same order; without it, they vary.",
        examples=[1],
    )


class WithSandbox(ServiceSettings):
    """The settings of the service with the group of the sandbox."""

    sandbox: SandboxSettings = SandboxSettings()

    def domain_problems(self) -> Iterator[SettingProblem]:
        """Refuse the sandbox in production."""
        yield from super().domain_problems()
        if self.sandbox.control_url is not None:
            name = "SANDBOX__CONTROL_URL"
            yield SettingProblem(name, "is for development; unset it", f"{name}=")
