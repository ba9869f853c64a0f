-- Quotas and notifications, for SQLite 3.33+.

-- Most that the client may spend in a calendar month; NULL: no quota
ALTER TABLE astclient ADD COLUMN monthly_quota INTEGER NULL;
-- Most that the client may spend in a day; NULL: no quota
ALTER TABLE astclient ADD COLUMN daily_quota INTEGER NULL;
-- IANA name of the zone in which its months and days begin
ALTER TABLE astclient ADD COLUMN timezone TEXT NOT NULL DEFAULT 'UTC';
-- A prepaid client is told when its balance falls below this; NULL: never
ALTER TABLE astclient ADD COLUMN low_balance INTEGER NULL;
-- 1: it was told, and has not been above since
ALTER TABLE astclient ADD COLUMN low_balance_told INTEGER NOT NULL DEFAULT 0;
-- 1: it had a quota once; what it spends is counted in astquota
ALTER TABLE astclient ADD COLUMN quota_counted INTEGER NOT NULL DEFAULT 0;

-- The month of whose quota the call is, as 2026-11; NULL: the client had no quota
ALTER TABLE astcreditres ADD COLUMN quota_month TEXT NULL;
-- The day of whose quota the call is, as 2026-11-21
ALTER TABLE astcreditres ADD COLUMN quota_day TEXT NULL;

-- The month in which the call began, in the client's time zone; NULL: no client was recognised
ALTER TABLE astcdr ADD COLUMN quota_month TEXT NULL;
-- The day in which the call began
ALTER TABLE astcdr ADD COLUMN quota_day TEXT NULL;

-- Until now every client's time zone was UTC.
UPDATE astcdr SET quota_month = SUBSTR(date_created, 1, 7), quota_day = SUBSTR(date_created, 1, 10)
WHERE client_id IS NOT NULL;

-- What clients with a quota used of it, by the period in which their calls began
CREATE TABLE astquota (
  client_id     INTEGER NOT NULL,
  period        TEXT NOT NULL, -- 2026-11 or 2026-11-21, in the client's time zone
  quota         INTEGER NULL, -- The quota when the row was last written; NULL: none for periods of this length
  spent         INTEGER NOT NULL DEFAULT 0, -- Price of the calls of this period that have ended
  reserved      INTEGER NOT NULL DEFAULT 0, -- Reservations of the calls of this period that are up
  waived        INTEGER NOT NULL DEFAULT 0, -- Spent before a reset, no longer counted against the quota
  told          INTEGER NOT NULL DEFAULT 0, -- The highest threshold, in percent, of which was told
  first_over_at TEXT NULL, -- When what was spent first passed a threshold
  last_over_at  TEXT NULL, -- When a call last ended, or was refused, past a threshold
  blocked_at    TEXT NULL, -- When a call was first refused for this quota since it was set, raised or reset
  PRIMARY KEY (client_id, period),
  CONSTRAINT fk_astquota_client FOREIGN KEY (client_id) REFERENCES astclient (id)
);

-- Texts of notifications; what is not here is as the program ships it
CREATE TABLE asttemplate (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  kind         TEXT NOT NULL, -- quota or low-balance
  audience     TEXT NOT NULL, -- client or admin
  reseller_id  INTEGER NULL, -- For this reseller's clients; NULL: for all
  subject      TEXT NOT NULL,
  body         TEXT NOT NULL, -- Plain text
  html         TEXT NULL, -- NULL: plain text only
  headers      TEXT NULL, -- Further header lines
  date_created TEXT NOT NULL,
  CONSTRAINT fk_asttemplate_reseller FOREIGN KEY (reseller_id) REFERENCES astreseller (id)
);
CREATE INDEX ix_asttemplate_kind ON asttemplate (kind, audience, reseller_id);

-- Notifications, written in the transaction that makes them due and sent afterwards
CREATE TABLE astoutbox (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  reference    TEXT NOT NULL, -- Unique: what is told once is never told twice
  kind         TEXT NOT NULL, -- quota or low-balance
  audience     TEXT NOT NULL, -- client or admin
  client_id    INTEGER NOT NULL,
  facts        TEXT NOT NULL, -- What the template may say (JSON)
  status       TEXT NOT NULL DEFAULT 'waiting', -- waiting, sending, sent, failed (given up) or unsure (the program ended while it was being sent)
  attempts     INTEGER NOT NULL DEFAULT 0,
  next_attempt TEXT NULL, -- Not before this instant; NULL: none to come
  sender       TEXT NOT NULL DEFAULT '', -- The process that is sending it
  recipient    TEXT NOT NULL DEFAULT '', -- Where it was sent to
  error        TEXT NOT NULL DEFAULT '', -- Why the last attempt failed
  date_created TEXT NOT NULL,
  sent_at      TEXT NULL,
  CONSTRAINT fk_astoutbox_client FOREIGN KEY (client_id) REFERENCES astclient (id)
);
CREATE UNIQUE INDEX uq_astoutbox_reference ON astoutbox (reference);
CREATE INDEX ix_astoutbox_due ON astoutbox (status, next_attempt);
CREATE INDEX ix_astoutbox_client ON astoutbox (client_id);
