-- What a reset of a quota waives, for MariaDB 10.6+ and MySQL 8.

ALTER TABLE astquota
  ADD COLUMN reset_at DATETIME(3) NULL COMMENT 'When it was last reset: what calls cost that were booked until then is waived, with all that is corrected of them later; NULL: never',
  MODIFY COLUMN blocked_at DATETIME(3) NULL COMMENT 'Since when calls that have ended leave nothing, or less than a call that was refused costs at least; NULL: they leave something';
