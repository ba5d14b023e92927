"""The dashboard: what its page shows, and the stream that keeps it up to date."""
