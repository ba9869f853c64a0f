-- What of a notification the mail server may have already, for SQLite 3.33+.

-- From when on the mail server may have it: the end of the mail was about to be sent; NULL: it cannot have it
ALTER TABLE astoutbox ADD COLUMN handed_over_at TEXT NULL;
-- Addresses for which the mail server has taken it, while it waits for others
ALTER TABLE astoutbox ADD COLUMN taken_for TEXT NULL;

-- Of what is being sent now nobody noted whether it was handed over.
UPDATE astoutbox SET handed_over_at = date_created WHERE status = 'sending';
