"""Workers and replicas as one circuit. `docs/fleet.md` describes the protocol."""
