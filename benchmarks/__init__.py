"""What the breaker and the service cost, measured beside rivals in one run.

``python -m benchmarks`` runs everything and prints Markdown tables. ``docs/benchmarks.md`` explains
what is measured and how.
"""
