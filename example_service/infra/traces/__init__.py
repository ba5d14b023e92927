"""OpenTelemetry traces of requests, outgoing calls, SQL statements and circuit breakers.

This package needs the extra `otel`, so it is only imported if `TRACES__ENABLED` is set.
"""
