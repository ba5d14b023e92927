"""What was here is part of the test kit for users of the template."""

from example_service.infra.resilience.testing import FakeClock, RecordingListener

__all__ = ["FakeClock", "RecordingListener"]
