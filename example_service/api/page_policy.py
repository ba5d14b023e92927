"""Response headers for the HTML pages of the service."""

import base64
import hashlib
import re

_DEFAULT = {
    "default-src": "'none'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "script-src": "'self'",
    "style-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}


def page_headers(page: str, more: dict[str, str] | None = None) -> dict[str, str]:
    """Return the headers of a page that only loads files from this service.

    Args:
        page: The HTML. Its inline scripts and styles are allowed by their hashes.
        more: Additional sources for directives of the content security policy.
    """
    policy = dict(_DEFAULT)
    for tag in ("script", "style"):
        policy[f"{tag}-src"] += _digests(page, tag)
    for directive, sources in (more or {}).items():
        policy[directive] = f"{policy.get(directive, '')} {sources}".strip()
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": "; ".join(f"{name} {of}" for name, of in policy.items()),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _digests(page: str, tag: str) -> str:
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = (hashlib.sha256(content.encode()).digest() for content in contents)
    return "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
