"""The payment provider that misbehaves on request, for development only."""
