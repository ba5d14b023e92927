"""The check of the host that a request is for."""

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import Receive, Scope, Send

from example_service.api.request.middleware import is_for_monitoring


class AllowedHostsMiddleware(TrustedHostMiddleware):
    """Refuses requests for hosts that are not ours, but for those of probes and scrapers.

    Orchestrators and Prometheus know an instance by its address, not by the name of the service.
    What they ask for is the same under any name, so there is nothing to gain by a wrong one.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] == "http" and is_for_monitoring(scope):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
