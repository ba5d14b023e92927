"""Clients for outgoing HTTP."""
