"""The example domain: payments in front of a provider that fails."""
