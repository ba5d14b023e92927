"""Replay recorded calls through the rules of the circuit breaker, with a simulated clock.

    recording   reads and validates the calls of a file
    parameters  parses a set of breaker parameters
    simulation  computes what each set would have done with the calls
    suggestion  searches for parameters that meet a goal
    report      formats the result as text and as JSON
    picture     draws the result as an SVG file, with matplotlib

`docs/tuning.md` shows how to use it.
"""
