"""The database: its engine, transactions, and the base class of all tables."""
