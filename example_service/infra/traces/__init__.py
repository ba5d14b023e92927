"""Traces for OpenTelemetry: requests, outgoing calls, statements, and what circuits decided.

Nothing imports this package unless `TRACES__ENABLED`, because it needs the extra `otel`.
"""
