"""Clients for outgoing HTTP requests."""
