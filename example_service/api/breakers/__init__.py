"""Views of circuit breakers, and the operations that operators have on them."""
