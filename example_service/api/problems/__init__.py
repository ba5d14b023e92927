"""Problem details (RFC 9457): their catalogue, and how exceptions become answers."""
