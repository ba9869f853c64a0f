-- Recovery after a time in which nobody listened, for SQLite 3.33+.

-- The Asterisk servers that are listened to
CREATE TABLE astnode (
  name        TEXT NOT NULL PRIMARY KEY, -- Name of the Asterisk server
  heard_until TEXT NOT NULL -- All that happened there until this instant was heard: a call whose end was not heard was up until then
);

-- Added to price by later corrections: the client paid price + corrected; NULL: never corrected
ALTER TABLE astcdr ADD COLUMN corrected INTEGER NULL;
-- When an estimated call was last compared with Asterisk's own record
ALTER TABLE astcdr ADD COLUMN corrected_at TEXT NULL;
-- Seconds to charge by that record, increments applied; NULL: as billsec
ALTER TABLE astcdr ADD COLUMN corrected_billsec INTEGER NULL;
-- Seconds from answer to end by that record; NULL: as answeredtime
ALTER TABLE astcdr ADD COLUMN corrected_answeredtime NUMERIC NULL;
-- Added to ourcost by later corrections; NULL: nothing
ALTER TABLE astcdr ADD COLUMN corrected_ourcost INTEGER NULL;
