-- The outbound leg of a call stands in its CDR alone, for SQLite 3.35+.
--
-- An answer is noted in astcdr in any case. That it was noted in the reservation as well, and in an
-- index there, made one more row to find and to write of every call. Stop all servers before this.

CREATE INDEX ix_astcdr_leg ON astcdr (leg_uniqueid);

DROP INDEX ix_astcreditres_leg;

ALTER TABLE astcreditres DROP COLUMN leg_uniqueid;
