"""The database: the engine, its transactions, and what tables have in common."""
