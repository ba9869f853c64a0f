-- What of a notification the mail server may have already, for MariaDB 10.6+ and MySQL 8.

ALTER TABLE astoutbox
  ADD COLUMN handed_over_at DATETIME(3) NULL COMMENT 'From when on the mail server may have it: the end of the mail was about to be sent; NULL: it cannot have it',
  ADD COLUMN taken_for TEXT NULL COMMENT 'Addresses for which the mail server has taken it, while it waits for others';

-- Of what is being sent now nobody noted whether it was handed over.
UPDATE astoutbox SET handed_over_at = date_created WHERE status = 'sending';
