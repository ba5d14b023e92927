"""Adapters to the world outside the service."""
