"""Checks the `Host` header of requests."""

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import Receive, Scope, Send

from example_service.api.request.middleware import is_for_monitoring


class AllowedHostsMiddleware(TrustedHostMiddleware):
    """Refuses requests for unknown hosts, except requests for health and metrics.

    Orchestrators and Prometheus use the address of an instance instead of the name of the service.
    The responses do not depend on the host, so a forged `Host` header gains nothing.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse a request."""
        if scope["type"] == "http" and is_for_monitoring(scope):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
