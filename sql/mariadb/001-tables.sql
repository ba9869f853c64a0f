-- astcredit, first version of the tables, for MariaDB 10.6+ and MySQL 8.
--
-- Amounts are exact decimals in the client's currency. Times are UTC with milliseconds.
-- Texts compare byte by byte (utf8mb4_bin): account "Alice" is not account "alice".
-- Statements end with a semicolon at the end of a line; the program runs them one by one.

CREATE TABLE astcatalog (
  id      TINYINT NOT NULL PRIMARY KEY,
  version BIGINT NOT NULL COMMENT 'Raised by every change of clients, accounts or rates; servers reload when it moves'
) COMMENT 'One row: the version of everything that people configure'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

INSERT INTO astcatalog (id, version) VALUES (1, 1);

CREATE TABLE astratetable (
  id           INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name         VARCHAR(80) NOT NULL,
  currency     CHAR(3) NOT NULL COMMENT 'ISO 4217 code; a client is rated only in its own currency',
  version      BIGINT NOT NULL DEFAULT 1 COMMENT 'Raised by every import into this table',
  rates        INT NOT NULL DEFAULT 0 COMMENT 'Number of rows in astrate, past and future rates included',
  enabled      TINYINT NOT NULL DEFAULT 1 COMMENT '0: nothing is rated with this table',
  date_created DATETIME(3) NOT NULL,
  UNIQUE KEY uq_astratetable_name (name)
) COMMENT 'Rate tables: what numbers cost'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE astrate (
  id              BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  rate_table_id   INT NOT NULL,
  prefix          VARCHAR(20) NOT NULL COMMENT 'First digits of the number, with the country code and without +',
  destination     VARCHAR(120) NOT NULL DEFAULT '' COMMENT 'Name of the destination for people',
  rate_per_minute DECIMAL(18,6) NOT NULL,
  connect_fee     DECIMAL(18,6) NOT NULL DEFAULT 0 COMMENT 'Charged once when a call is answered',
  first_increment INT NOT NULL DEFAULT 1 COMMENT 'Seconds charged at least',
  next_increment  INT NOT NULL DEFAULT 1 COMMENT 'Seconds charged at a time after the first increment',
  grace_seconds   INT NOT NULL DEFAULT 0 COMMENT 'A call of at most this length is not charged',
  minimum_charge  DECIMAL(18,6) NOT NULL DEFAULT 0 COMMENT 'The least that a charged call costs',
  effective_from  DATETIME(3) NOT NULL COMMENT 'In force from this instant',
  effective_until DATETIME(3) NULL COMMENT 'In force until just before this instant; NULL: no end',
  UNIQUE KEY uq_astrate_prefix (rate_table_id, prefix, effective_from),
  CONSTRAINT fk_astrate_table FOREIGN KEY (rate_table_id) REFERENCES astratetable (id)
) COMMENT 'The rates of the rate tables; a rate that was ever in force stays, with its end'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE astclient (
  id            INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name          VARCHAR(80) NOT NULL,
  reseller_id   INT NULL COMMENT 'The reseller that this client belongs to; NULL: none',
  kind          VARCHAR(10) NOT NULL COMMENT 'prepaid or postpaid',
  currency      CHAR(3) NOT NULL COMMENT 'ISO 4217 code of all amounts of this client',
  balance       DECIMAL(18,6) NOT NULL DEFAULT 0 COMMENT 'Sum of the client''s ledger; negative: the client owes',
  credit_limit  DECIMAL(18,6) NULL COMMENT 'How far the balance may fall below zero; NULL (postpaid only): no limit',
  reserved      DECIMAL(18,6) NOT NULL DEFAULT 0 COMMENT 'Sum of the client''s open reservations',
  active_calls  INT NOT NULL DEFAULT 0 COMMENT 'Number of the client''s open reservations',
  ledger_seq    BIGINT NOT NULL DEFAULT 0 COMMENT 'seq of the client''s last ledger row',
  rate_table_id INT NULL COMMENT 'Rates of the client''s calls, where the account has no rate table of its own',
  email         VARCHAR(254) NOT NULL DEFAULT '',
  enabled       TINYINT NOT NULL DEFAULT 1 COMMENT '0: every new call is refused (DISABLED)',
  date_created  DATETIME(3) NOT NULL,
  UNIQUE KEY uq_astclient_name (name),
  CONSTRAINT fk_astclient_rates FOREIGN KEY (rate_table_id) REFERENCES astratetable (id)
) COMMENT 'Clients: who pays. The balance is the client''s, however many accounts it has'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE astaccount (
  id            INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  client_id     INT NOT NULL,
  name          VARCHAR(80) NOT NULL,
  ident_by      VARCHAR(10) NOT NULL COMMENT 'How a call is recognised as this account''s: name (the accountcode)',
  ident         TEXT NOT NULL COMMENT 'The names that identify it, separated by semicolons',
  rate_table_id INT NULL COMMENT 'Comes before the client''s rate table',
  tag           VARCHAR(80) NOT NULL DEFAULT '',
  notes         TEXT NOT NULL,
  enabled       TINYINT NOT NULL DEFAULT 1 COMMENT '0: every new call is refused (DISABLED)',
  date_created  DATETIME(3) NOT NULL,
  UNIQUE KEY uq_astaccount_name (name),
  KEY ix_astaccount_client (client_id),
  CONSTRAINT fk_astaccount_client FOREIGN KEY (client_id) REFERENCES astclient (id),
  CONSTRAINT fk_astaccount_rates FOREIGN KEY (rate_table_id) REFERENCES astratetable (id)
) COMMENT 'Accounts: how clients'' calls are recognised'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

-- One row per call that is up or being set up: written and deleted at the rate of calls, so it
-- carries only the indexes that settlement needs.
CREATE TABLE astcreditres (
  call_id        CHAR(20) NOT NULL PRIMARY KEY COMMENT 'astcdr.id',
  node           VARCHAR(64) NOT NULL COMMENT 'Name of the Asterisk server',
  uniqueid       VARCHAR(150) NOT NULL COMMENT 'Asterisk''s uniqueid of the calling channel',
  leg_uniqueid   VARCHAR(150) NULL COMMENT 'Asterisk''s uniqueid of the answered outbound leg',
  client_id      INT NOT NULL,
  accountcode    VARCHAR(80) NOT NULL,
  reservedamount DECIMAL(18,6) NOT NULL COMMENT 'The most that the call can cost',
  seconds        INT NOT NULL COMMENT 'The longest that the call may last after answer',
  date_created   DATETIME(3) NOT NULL,
  expires_at     DATETIME(3) NOT NULL COMMENT 'By now the call must be over; what is still here is closed as estimated',
  KEY ix_astcreditres_channel (node, uniqueid),
  KEY ix_astcreditres_leg (node, leg_uniqueid),
  KEY ix_astcreditres_client (client_id),
  KEY ix_astcreditres_expires (expires_at)
) COMMENT 'Reservations that are open: from authorization to settlement and never after'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE astcdr (
  id              CHAR(20) NOT NULL PRIMARY KEY COMMENT 'The call''s id; ids sort by time',
  node            VARCHAR(64) NOT NULL COMMENT 'Name of the Asterisk server',
  uniqueid        VARCHAR(150) NOT NULL COMMENT 'Asterisk''s uniqueid of the calling channel',
  linkedid        VARCHAR(150) NOT NULL COMMENT 'Asterisk''s linkedid: the same for all channels of one call',
  leg_uniqueid    VARCHAR(150) NULL COMMENT 'Asterisk''s uniqueid of the outbound leg that is billed',
  channel         VARCHAR(150) NOT NULL DEFAULT '' COMMENT 'Name of the calling channel',
  client_id       INT NULL COMMENT 'NULL: no account was recognised (status denied)',
  account_id      INT NULL,
  accountcode     VARCHAR(80) NOT NULL,
  callerid        VARCHAR(80) NOT NULL COMMENT 'The caller''s number, as Asterisk told it',
  dialednum       VARCHAR(80) NOT NULL COMMENT 'The number as it was dialled',
  callednum       VARCHAR(80) NOT NULL COMMENT 'The number that was rated: country code first, no +',
  prefix          VARCHAR(20) NOT NULL DEFAULT '' COMMENT 'The prefix of the rate that was applied',
  destination     VARCHAR(120) NOT NULL DEFAULT '',
  currency        CHAR(3) NOT NULL DEFAULT '',
  rate            DECIMAL(18,6) NULL COMMENT 'Per minute',
  connect_fee     DECIMAL(18,6) NULL,
  first_increment INT NULL,
  next_increment  INT NULL,
  grace_seconds   INT NULL,
  minimum_charge  DECIMAL(18,6) NULL,
  trunk           VARCHAR(150) NOT NULL DEFAULT '' COMMENT 'The trunk of the outbound leg that answered, e.g. PJSIP/carrier',
  status          VARCHAR(10) NOT NULL COMMENT 'open, answered, completed, failed (not answered, nothing charged) or denied',
  denied          VARCHAR(10) NOT NULL DEFAULT '' COMMENT 'AC_STATUS of a denied call',
  reason          VARCHAR(200) NOT NULL DEFAULT '' COMMENT 'AC_REASON of a denied call',
  dialstatus      VARCHAR(20) NOT NULL DEFAULT '' COMMENT 'Asterisk''s DIALSTATUS of the last attempt',
  hangupcause     INT NULL COMMENT 'Q.850 cause',
  date_created    DATETIME(3) NOT NULL COMMENT 'When the call was authorized or denied',
  dialed_at       DATETIME(3) NULL COMMENT 'When the first outbound leg was dialled',
  answered_at     DATETIME(3) NULL COMMENT 'When the outbound leg was answered, by Asterisk''s clock',
  ended_at        DATETIME(3) NULL COMMENT 'When the outbound leg (not answered: the call) ended, by Asterisk''s clock',
  dialedtime      DECIMAL(12,3) NULL COMMENT 'Seconds from the first dialling to the end',
  answeredtime    DECIMAL(12,3) NULL COMMENT 'Seconds from answer to end',
  seconds         INT NOT NULL DEFAULT 0 COMMENT 'The longest that the call was allowed to last after answer',
  billsec         INT NULL COMMENT 'Seconds charged, increments applied',
  price           DECIMAL(18,6) NULL COMMENT 'What the client paid',
  ourcost         DECIMAL(18,6) NULL COMMENT 'What the terminator is owed; NULL: not known (the dialplan''s own trunk)',
  reservedamount  DECIMAL(18,6) NOT NULL DEFAULT 0 COMMENT 'What was reserved for the call',
  overrun_ms      INT NULL COMMENT 'Milliseconds that Asterisk cut the call late; not charged',
  settled_by      VARCHAR(16) NOT NULL DEFAULT '' COMMENT 'Who brought the end: ami, hangup, expiry, undelivered',
  estimated       TINYINT NOT NULL DEFAULT 0 COMMENT '1: the end was not seen; look at this call',
  note            VARCHAR(200) NOT NULL DEFAULT '',
  KEY ix_astcdr_client (client_id, date_created),
  KEY ix_astcdr_date (date_created),
  KEY ix_astcdr_uniqueid (uniqueid)
) COMMENT 'Call detail records, one row per call: written at authorization, completed at the end'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE astledger (
  id            BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  client_id     INT NOT NULL,
  seq           BIGINT NOT NULL COMMENT 'Counts the client''s rows: 1, 2, 3 … without a gap',
  kind          VARCHAR(12) NOT NULL COMMENT 'topup, charge, adjustment or refund',
  amount        DECIMAL(18,6) NOT NULL COMMENT 'Positive: to the client''s credit; charges are negative',
  balance_after DECIMAL(18,6) NOT NULL COMMENT 'The client''s balance with this row',
  call_id       CHAR(20) NULL COMMENT 'astcdr.id of a charge or refund',
  reference     VARCHAR(120) NOT NULL COMMENT 'Unique: the same thing is never booked twice',
  actor         VARCHAR(80) NOT NULL COMMENT 'Who booked it',
  note          VARCHAR(200) NOT NULL DEFAULT '',
  date_created  DATETIME(3) NOT NULL,
  UNIQUE KEY uq_astledger_reference (reference),
  UNIQUE KEY uq_astledger_seq (client_id, seq),
  KEY ix_astledger_call (call_id),
  CONSTRAINT fk_astledger_client FOREIGN KEY (client_id) REFERENCES astclient (id)
) COMMENT 'Every change of every balance. Rows are only ever added'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE astaudit (
  id           BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  date_created DATETIME(3) NOT NULL,
  actor        VARCHAR(80) NOT NULL COMMENT 'Who did it: user@host of the command line',
  action       VARCHAR(32) NOT NULL COMMENT 'add, set, enable, disable, topup, adjust, import, hangup …',
  object_kind  VARCHAR(32) NOT NULL COMMENT 'client, account, rate-table, call …',
  object_name  VARCHAR(120) NOT NULL,
  state_before TEXT NULL COMMENT 'What changed, before (JSON)',
  state_after  TEXT NULL COMMENT 'What changed, after (JSON)',
  note         VARCHAR(200) NOT NULL DEFAULT '',
  KEY ix_astaudit_object (object_kind, object_name)
) COMMENT 'Who changed what. Written in the same transaction as the change'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;
