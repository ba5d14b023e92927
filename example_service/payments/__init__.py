"""The example domain: payments that survive failures of their provider."""
