"""The settings of one named circuit breaker."""

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from example_service.core.settings.group import Group
from example_service.core.settings.types import Seconds


class FailureRateSettings(Group):
    """The fields of `FailureRate`. Setting any of them adds this rule to the breaker."""

    threshold: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of failures among recent calls that opens the circuit, from 0 to 1.",
        examples=[0.5],
    )
    window_seconds: Seconds | None = Field(
        default=None,
        description="Length of the window of recent calls in seconds.",
        examples=[30.0],
    )
    window_calls: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Length of the window in calls, instead of seconds.",
    )
    minimum_calls: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Number of calls in the window before the share counts.",
        examples=[20],
    )

    @field_validator("window_calls")
    @classmethod
    def _one_window(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("window_seconds") is not None:
            raise ValueError("should not be set together with WINDOW_SECONDS")
        return value

    @field_validator("minimum_calls")
    @classmethod
    def _fits_window(cls, value: int | None, info: ValidationInfo) -> int | None:
        window = info.data.get("window_calls")
        if value is not None and window is not None and value > window:
            raise ValueError("should be at most WINDOW_CALLS")
        return value


class BackoffSettings(Group):
    """The fields of `Backoff`."""

    multiplier: float | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        allow_inf_nan=False,
        description="Factor by which each failed recovery lengthens the open period; 1 for no "
        "growth.",
        examples=[2.0],
    )
    max_timeout: Seconds | None = Field(
        default=None, description="Limit of the open period in seconds.", examples=[300.0]
    )
    jitter: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Largest share by which open periods are shortened at random, from 0 to 1.",
        examples=[0.2],
    )
    seed: int | None = Field(
        default=None, description="Seed that makes the random shares reproducible.", examples=[7]
    )


class CircuitBreakerSettings(Group):
    """The parameters of one breaker. Those that are not set keep their values in the code."""

    failure_threshold: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Failures in a row that open the circuit.",
        examples=[5],
    )
    recovery_timeout: Seconds | None = Field(
        default=None,
        description="Seconds that the circuit stays open before a probe is admitted.",
        examples=[60.0],
    )
    success_threshold: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Successful probes that close the circuit.",
        examples=[2],
    )
    half_open_max_calls: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000_000,
        description="Limit of concurrent probes while half-open.",
        examples=[3],
    )
    probe_timeout: Seconds | None = Field(
        default=None,
        description="Seconds after which a probe that has not ended counts as a failure.",
        examples=[30.0],
    )
    slow_call_duration: Seconds | None = Field(
        default=None,
        description="Seconds after which a running call counts as a failure.",
        examples=[10.0],
    )
    failure_rate: FailureRateSettings = FailureRateSettings()
    backoff: BackoffSettings = BackoffSettings()
    critical: bool = Field(
        default=False, description="Whether the service is not ready while the circuit is open."
    )

    def parameters(self) -> dict[str, Any]:
        """The keyword arguments of the breaker that are set.

        `failure_rate` and `backoff` are mappings of the fields that are set.
        """
        given = self.model_dump(exclude_none=True, exclude={"critical"})
        return {name: value for name, value in given.items() if value != {}}
