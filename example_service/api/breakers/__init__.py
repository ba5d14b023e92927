"""Circuit breakers in the HTTP API: their metrics, and the orders that operators give them."""
