"""Problem details (RFC 9457): the catalogue of problems, and the handling of exceptions."""
