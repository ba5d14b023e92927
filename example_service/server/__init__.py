"""Everything that knows uvicorn: one process, its protocol, and several processes."""
