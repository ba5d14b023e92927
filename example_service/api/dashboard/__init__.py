"""The dashboard: the data that its page shows, and the stream that keeps it up to date."""
