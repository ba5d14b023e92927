"""Recorded calls, run through the rules of the circuit breaker under a simulated clock.

    recording   reads calls from a file and refuses what it cannot trust
    parameters  a set of the breaker's parameters, from a line of text
    simulation  what each set would have done with the recorded calls
    suggestion  searches parameters for a stated goal
    report      the outcome as text and as JSON
    picture     the outcome as an SVG file, with matplotlib

`docs/tuning.md` shows how to use it.
"""
