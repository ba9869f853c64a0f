-- astcredit, first version of the tables, for SQLite 3.33+.
--
-- Amounts are integers: millionths of a unit of the client's currency. Times are UTC texts
-- "YYYY-MM-DD HH:MM:SS.mmm".
-- Texts compare byte by byte: account "Alice" is not account "alice".
-- Statements end with a semicolon at the end of a line; the program runs them one by one.

-- One row: the version of everything that people configure
CREATE TABLE astcatalog (
  id               INTEGER NOT NULL PRIMARY KEY,
  version          INTEGER NOT NULL -- Raised by every change of clients, accounts or rates; servers reload when it moves
);

INSERT INTO astcatalog (id, version) VALUES (1, 1);

-- Rate tables: what numbers cost
CREATE TABLE astratetable (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  name             TEXT NOT NULL,
  currency         TEXT NOT NULL, -- ISO 4217 code; a client is rated only in its own currency
  version          INTEGER NOT NULL DEFAULT 1, -- Raised by every import into this table
  rates            INTEGER NOT NULL DEFAULT 0, -- Number of rows in astrate, past and future rates included
  enabled          INTEGER NOT NULL DEFAULT 1, -- 0: nothing is rated with this table
  date_created     TEXT NOT NULL
);
CREATE UNIQUE INDEX uq_astratetable_name ON astratetable (name);

-- The rates of the rate tables; a rate that was ever in force stays, with its end
CREATE TABLE astrate (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  rate_table_id    INTEGER NOT NULL,
  prefix           TEXT NOT NULL, -- First digits of the number, with the country code and without +
  destination      TEXT NOT NULL DEFAULT '', -- Name of the destination for people
  rate_per_minute  INTEGER NOT NULL,
  connect_fee      INTEGER NOT NULL DEFAULT 0, -- Charged once when a call is answered
  first_increment  INTEGER NOT NULL DEFAULT 1, -- Seconds charged at least
  next_increment   INTEGER NOT NULL DEFAULT 1, -- Seconds charged at a time after the first increment
  grace_seconds    INTEGER NOT NULL DEFAULT 0, -- A call of at most this length is not charged
  minimum_charge   INTEGER NOT NULL DEFAULT 0, -- The least that a charged call costs
  effective_from   TEXT NOT NULL, -- In force from this instant
  effective_until  TEXT NULL, -- In force until just before this instant; NULL: no end
  CONSTRAINT fk_astrate_table FOREIGN KEY (rate_table_id) REFERENCES astratetable (id)
);
CREATE UNIQUE INDEX uq_astrate_prefix ON astrate (rate_table_id, prefix, effective_from);

-- Clients: who pays. The balance is the client's, however many accounts it has
CREATE TABLE astclient (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  name             TEXT NOT NULL,
  reseller_id      INTEGER NULL, -- The reseller that this client belongs to; NULL: none
  kind             TEXT NOT NULL, -- prepaid or postpaid
  currency         TEXT NOT NULL, -- ISO 4217 code of all amounts of this client
  balance          INTEGER NOT NULL DEFAULT 0, -- Sum of the client's ledger; negative: the client owes
  credit_limit     INTEGER NULL, -- How far the balance may fall below zero; NULL (postpaid only): no limit
  reserved         INTEGER NOT NULL DEFAULT 0, -- Sum of the client's open reservations
  active_calls     INTEGER NOT NULL DEFAULT 0, -- Number of the client's open reservations
  ledger_seq       INTEGER NOT NULL DEFAULT 0, -- seq of the client's last ledger row
  rate_table_id    INTEGER NULL, -- Rates of the client's calls, where the account has no rate table of its own
  email            TEXT NOT NULL DEFAULT '',
  enabled          INTEGER NOT NULL DEFAULT 1, -- 0: every new call is refused (DISABLED)
  date_created     TEXT NOT NULL,
  CONSTRAINT fk_astclient_rates FOREIGN KEY (rate_table_id) REFERENCES astratetable (id)
);
CREATE UNIQUE INDEX uq_astclient_name ON astclient (name);

-- Accounts: how clients' calls are recognised
CREATE TABLE astaccount (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  client_id        INTEGER NOT NULL,
  name             TEXT NOT NULL,
  ident_by         TEXT NOT NULL, -- How a call is recognised as this account's: name (the accountcode)
  ident            TEXT NOT NULL, -- The names that identify it, separated by semicolons
  rate_table_id    INTEGER NULL, -- Comes before the client's rate table
  tag              TEXT NOT NULL DEFAULT '',
  notes            TEXT NOT NULL,
  enabled          INTEGER NOT NULL DEFAULT 1, -- 0: every new call is refused (DISABLED)
  date_created     TEXT NOT NULL,
  CONSTRAINT fk_astaccount_client FOREIGN KEY (client_id) REFERENCES astclient (id),
  CONSTRAINT fk_astaccount_rates FOREIGN KEY (rate_table_id) REFERENCES astratetable (id)
);
CREATE UNIQUE INDEX uq_astaccount_name ON astaccount (name);
CREATE INDEX ix_astaccount_client ON astaccount (client_id);

-- One row per call that is up or being set up: written and deleted at the rate of calls, so it
-- carries only the indexes that settlement needs.
-- Reservations that are open: from authorization to settlement and never after
CREATE TABLE astcreditres (
  call_id          TEXT NOT NULL PRIMARY KEY, -- astcdr.id
  node             TEXT NOT NULL, -- Name of the Asterisk server
  uniqueid         TEXT NOT NULL, -- Asterisk's uniqueid of the calling channel
  leg_uniqueid     TEXT NULL, -- Asterisk's uniqueid of the answered outbound leg
  client_id        INTEGER NOT NULL,
  accountcode      TEXT NOT NULL,
  reservedamount   INTEGER NOT NULL, -- The most that the call can cost
  seconds          INTEGER NOT NULL, -- The longest that the call may last after answer
  date_created     TEXT NOT NULL,
  expires_at       TEXT NOT NULL -- By now the call must be over; what is still here is closed as estimated
);
CREATE INDEX ix_astcreditres_channel ON astcreditres (node, uniqueid);
CREATE INDEX ix_astcreditres_leg ON astcreditres (node, leg_uniqueid);
CREATE INDEX ix_astcreditres_client ON astcreditres (client_id);
CREATE INDEX ix_astcreditres_expires ON astcreditres (expires_at);

-- Call detail records, one row per call: written at authorization, completed at the end
CREATE TABLE astcdr (
  id               TEXT NOT NULL PRIMARY KEY, -- The call's id; ids sort by time
  node             TEXT NOT NULL, -- Name of the Asterisk server
  uniqueid         TEXT NOT NULL, -- Asterisk's uniqueid of the calling channel
  linkedid         TEXT NOT NULL, -- Asterisk's linkedid: the same for all channels of one call
  leg_uniqueid     TEXT NULL, -- Asterisk's uniqueid of the outbound leg that is billed
  channel          TEXT NOT NULL DEFAULT '', -- Name of the calling channel
  client_id        INTEGER NULL, -- NULL: no account was recognised (status denied)
  account_id       INTEGER NULL,
  accountcode      TEXT NOT NULL,
  callerid         TEXT NOT NULL, -- The caller's number, as Asterisk told it
  dialednum        TEXT NOT NULL, -- The number as it was dialled
  callednum        TEXT NOT NULL, -- The number that was rated: country code first, no +
  prefix           TEXT NOT NULL DEFAULT '', -- The prefix of the rate that was applied
  destination      TEXT NOT NULL DEFAULT '',
  currency         TEXT NOT NULL DEFAULT '',
  rate             INTEGER NULL, -- Per minute
  connect_fee      INTEGER NULL,
  first_increment  INTEGER NULL,
  next_increment   INTEGER NULL,
  grace_seconds    INTEGER NULL,
  minimum_charge   INTEGER NULL,
  trunk            TEXT NOT NULL DEFAULT '', -- The trunk of the outbound leg that answered, e.g. PJSIP/carrier
  status           TEXT NOT NULL, -- open, answered, completed, failed (not answered, nothing charged) or denied
  denied           TEXT NOT NULL DEFAULT '', -- AC_STATUS of a denied call
  reason           TEXT NOT NULL DEFAULT '', -- AC_REASON of a denied call
  dialstatus       TEXT NOT NULL DEFAULT '', -- Asterisk's DIALSTATUS of the last attempt
  hangupcause      INTEGER NULL, -- Q.850 cause
  date_created     TEXT NOT NULL, -- When the call was authorized or denied
  dialed_at        TEXT NULL, -- When the first outbound leg was dialled
  answered_at      TEXT NULL, -- When the outbound leg was answered, by Asterisk's clock
  ended_at         TEXT NULL, -- When the outbound leg (not answered: the call) ended, by Asterisk's clock
  dialedtime       NUMERIC NULL, -- Seconds from the first dialling to the end
  answeredtime     NUMERIC NULL, -- Seconds from answer to end
  seconds          INTEGER NOT NULL DEFAULT 0, -- The longest that the call was allowed to last after answer
  billsec          INTEGER NULL, -- Seconds charged, increments applied
  price            INTEGER NULL, -- What the client paid
  ourcost          INTEGER NULL, -- What the terminator is owed; NULL: not known (the dialplan's own trunk)
  reservedamount   INTEGER NOT NULL DEFAULT 0, -- What was reserved for the call
  overrun_ms       INTEGER NULL, -- Milliseconds that Asterisk cut the call late; not charged
  settled_by       TEXT NOT NULL DEFAULT '', -- Who brought the end: ami, hangup, expiry, undelivered
  estimated        INTEGER NOT NULL DEFAULT 0, -- 1: the end was not seen; look at this call
  note             TEXT NOT NULL DEFAULT ''
);
CREATE INDEX ix_astcdr_client ON astcdr (client_id, date_created);
CREATE INDEX ix_astcdr_date ON astcdr (date_created);
CREATE INDEX ix_astcdr_uniqueid ON astcdr (uniqueid);

-- Every change of every balance. Rows are only ever added
CREATE TABLE astledger (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  client_id        INTEGER NOT NULL,
  seq              INTEGER NOT NULL, -- Counts the client's rows: 1, 2, 3 … without a gap
  kind             TEXT NOT NULL, -- topup, charge, adjustment or refund
  amount           INTEGER NOT NULL, -- Positive: to the client's credit; charges are negative
  balance_after    INTEGER NOT NULL, -- The client's balance with this row
  call_id          TEXT NULL, -- astcdr.id of a charge or refund
  reference        TEXT NOT NULL, -- Unique: the same thing is never booked twice
  actor            TEXT NOT NULL, -- Who booked it
  note             TEXT NOT NULL DEFAULT '',
  date_created     TEXT NOT NULL,
  CONSTRAINT fk_astledger_client FOREIGN KEY (client_id) REFERENCES astclient (id)
);
CREATE UNIQUE INDEX uq_astledger_reference ON astledger (reference);
CREATE UNIQUE INDEX uq_astledger_seq ON astledger (client_id, seq);
CREATE INDEX ix_astledger_call ON astledger (call_id);

-- Who changed what. Written in the same transaction as the change
CREATE TABLE astaudit (
  id               INTEGER PRIMARY KEY AUTOINCREMENT,
  date_created     TEXT NOT NULL,
  actor            TEXT NOT NULL, -- Who did it: user@host of the command line
  action           TEXT NOT NULL, -- add, set, enable, disable, topup, adjust, import, hangup …
  object_kind      TEXT NOT NULL, -- client, account, rate-table, call …
  object_name      TEXT NOT NULL,
  state_before     TEXT NULL, -- What changed, before (JSON)
  state_after      TEXT NULL, -- What changed, after (JSON)
  note             TEXT NOT NULL DEFAULT ''
);
CREATE INDEX ix_astaudit_object ON astaudit (object_kind, object_name);
