"""A FastAPI service template that stays up when its dependencies go down."""

__version__ = "0.1.0"
