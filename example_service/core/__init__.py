"""What every other package may import: settings, exceptions and logging."""
