"""Creates independent projects from this template."""
