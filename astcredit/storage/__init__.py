"""SQLAlchemy Core on SQLite and MariaDB/MySQL. Nobody else imports SQLAlchemy."""
