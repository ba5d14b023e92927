"""The path of one request, from the first byte to its access line."""
