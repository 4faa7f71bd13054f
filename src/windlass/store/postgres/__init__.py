"""The PostgreSQL store: jobs in tables, the moves between their states in functions of the database."""
