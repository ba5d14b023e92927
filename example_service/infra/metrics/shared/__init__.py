"""Metrics of several processes, added up."""
