-- What a reset of a quota waives, for SQLite 3.33+.

-- When it was last reset: what calls cost that were booked until then is waived, with all that is corrected of them later; NULL: never
ALTER TABLE astquota ADD COLUMN reset_at TEXT NULL;
