"""The middleware that handles every request, from its headers to its line in the access log."""
