"""Adapters to databases, HTTP APIs, other workers and monitoring."""
