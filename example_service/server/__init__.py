"""All code that depends on uvicorn: a server process, its protocol, and the supervisor."""
