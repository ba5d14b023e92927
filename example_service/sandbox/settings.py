"""The settings of the sandbox, which production refuses."""

from collections.abc import Iterator

from pydantic import Field

from example_service.core.exceptions import SettingProblem
from example_service.core.settings.group import Group
from example_service.core.settings.model import ServiceSettings
from example_service.core.settings.types import HTTPURL
from example_service.sandbox.modes import LARGEST_SEED


class SandboxSettings(Group):
    """The payment provider that misbehaves on request, in development only."""

    control_url: HTTPURL | None = Field(
        default=None,
        description="Where the sandbox takes its orders; `serve` sets this for its workers.",
        examples=["http://127.0.0.1:9000"],
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=LARGEST_SEED,
        description="The same seed brings the same faults in the same order; they vary without it.",
        examples=[1],
    )


class WithSandbox(ServiceSettings):
    """The group that the sandbox adds to the settings of the service."""

    sandbox: SandboxSettings = SandboxSettings()

    def domain_problems(self) -> Iterator[SettingProblem]:
        """Refuse the sandbox in production."""
        yield from super().domain_problems()
        if self.sandbox.control_url is not None:
            name = "SANDBOX__CONTROL_URL"
            yield SettingProblem(name, "is for development; unset it", f"{name}=")
