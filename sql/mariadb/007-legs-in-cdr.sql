-- The outbound leg of a call stands in its CDR alone, for MariaDB 10.6+ and MySQL 8.
--
-- An answer is noted in astcdr in any case. That it was noted in the reservation as well, and in an
-- index there, made one more row to find and to write of every call. Stop all servers before this.

ALTER TABLE astcdr
  ADD KEY ix_astcdr_leg (leg_uniqueid);

ALTER TABLE astcreditres
  DROP KEY ix_astcreditres_leg,
  DROP COLUMN leg_uniqueid;
