"""Circuits shared by all workers and replicas. `docs/fleet.md` describes the protocol."""
