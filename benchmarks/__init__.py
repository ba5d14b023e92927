"""What the breaker and the service cost, measured beside their rivals in one run.

``python -m benchmarks`` runs everything and prints Markdown tables; ``docs/benchmarks.md`` says
what is measured and how.
"""
