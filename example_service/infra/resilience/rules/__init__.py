"""The rules of a circuit: standard library only; no clock, no lock, no I/O."""
