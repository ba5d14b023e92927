"""Metrics summed over several processes."""
