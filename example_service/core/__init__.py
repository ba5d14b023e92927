"""Settings, exceptions, logging and other code that all packages may import."""
