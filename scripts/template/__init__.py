"""Makes projects of their own from this template."""
