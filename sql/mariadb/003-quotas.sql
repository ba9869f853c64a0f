-- Quotas and notifications, for MariaDB 10.6+ and MySQL 8.

ALTER TABLE astclient
  ADD COLUMN monthly_quota DECIMAL(18,6) NULL COMMENT 'Most that the client may spend in a calendar month; NULL: no quota',
  ADD COLUMN daily_quota DECIMAL(18,6) NULL COMMENT 'Most that the client may spend in a day; NULL: no quota',
  ADD COLUMN timezone VARCHAR(64) NOT NULL DEFAULT 'UTC' COMMENT 'IANA name of the zone in which its months and days begin',
  ADD COLUMN low_balance DECIMAL(18,6) NULL COMMENT 'A prepaid client is told when its balance falls below this; NULL: never',
  ADD COLUMN low_balance_told TINYINT NOT NULL DEFAULT 0 COMMENT '1: it was told, and has not been above since',
  ADD COLUMN quota_counted TINYINT NOT NULL DEFAULT 0 COMMENT '1: it had a quota once; what it spends is counted in astquota';

ALTER TABLE astcreditres
  ADD COLUMN quota_month CHAR(7) NULL COMMENT 'The month of whose quota the call is, as 2026-11; NULL: the client had no quota',
  ADD COLUMN quota_day CHAR(10) NULL COMMENT 'The day of whose quota the call is, as 2026-11-21';

ALTER TABLE astcdr
  ADD COLUMN quota_month CHAR(7) NULL COMMENT 'The month in which the call began, in the client''s time zone; NULL: no client was recognised',
  ADD COLUMN quota_day CHAR(10) NULL COMMENT 'The day in which the call began';

-- Until now every client's time zone was UTC.
UPDATE astcdr SET quota_month = DATE_FORMAT(date_created, '%Y-%m'), quota_day = DATE_FORMAT(date_created, '%Y-%m-%d')
WHERE client_id IS NOT NULL;

CREATE TABLE astquota (
  client_id     INT NOT NULL,
  period        VARCHAR(10) NOT NULL COMMENT '2026-11 or 2026-11-21, in the client''s time zone',
  quota         DECIMAL(18,6) NULL COMMENT 'The quota when the row was last written; NULL: none for periods of this length',
  spent         DECIMAL(18,6) NOT NULL DEFAULT 0 COMMENT 'Price of the calls of this period that have ended',
  reserved      DECIMAL(18,6) NOT NULL DEFAULT 0 COMMENT 'Reservations of the calls of this period that are up',
  waived        DECIMAL(18,6) NOT NULL DEFAULT 0 COMMENT 'Spent before a reset, no longer counted against the quota',
  told          INT NOT NULL DEFAULT 0 COMMENT 'The highest threshold, in percent, of which was told',
  first_over_at DATETIME(3) NULL COMMENT 'When what was spent first passed a threshold',
  last_over_at  DATETIME(3) NULL COMMENT 'When a call last ended, or was refused, past a threshold',
  blocked_at    DATETIME(3) NULL COMMENT 'When a call was first refused for this quota since it was set, raised or reset',
  PRIMARY KEY (client_id, period),
  CONSTRAINT fk_astquota_client FOREIGN KEY (client_id) REFERENCES astclient (id)
) COMMENT 'What clients with a quota used of it, by the period in which their calls began'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE asttemplate (
  id           INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  kind         VARCHAR(32) NOT NULL COMMENT 'quota or low-balance',
  audience     VARCHAR(8) NOT NULL COMMENT 'client or admin',
  reseller_id  INT NULL COMMENT 'For this reseller''s clients; NULL: for all',
  subject      VARCHAR(200) NOT NULL COMMENT 'Subject line; placeholders as {client}',
  body         TEXT NOT NULL COMMENT 'Plain text',
  html         TEXT NULL COMMENT 'NULL: plain text only',
  headers      TEXT NULL COMMENT 'Further header lines',
  date_created DATETIME(3) NOT NULL,
  KEY ix_asttemplate_kind (kind, audience, reseller_id),
  CONSTRAINT fk_asttemplate_reseller FOREIGN KEY (reseller_id) REFERENCES astreseller (id)
) COMMENT 'Texts of notifications; what is not here is as the program ships it'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE astoutbox (
  id           INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  reference    VARCHAR(120) NOT NULL COMMENT 'Unique: what is told once is never told twice',
  kind         VARCHAR(32) NOT NULL COMMENT 'quota or low-balance',
  audience     VARCHAR(8) NOT NULL COMMENT 'client or admin',
  client_id    INT NOT NULL,
  facts        TEXT NOT NULL COMMENT 'What the template may say (JSON)',
  status       VARCHAR(10) NOT NULL DEFAULT 'waiting' COMMENT 'waiting, sending, sent, failed (given up) or unsure (the program ended while it was being sent)',
  attempts     INT NOT NULL DEFAULT 0 COMMENT 'How often it was tried',
  next_attempt DATETIME(3) NULL COMMENT 'Not before this instant; NULL: none to come',
  sender       VARCHAR(80) NOT NULL DEFAULT '' COMMENT 'The process that is sending it',
  recipient    VARCHAR(254) NOT NULL DEFAULT '' COMMENT 'Where it was sent to',
  error        VARCHAR(200) NOT NULL DEFAULT '' COMMENT 'Why the last attempt failed',
  date_created DATETIME(3) NOT NULL,
  sent_at      DATETIME(3) NULL COMMENT 'When the mail server took it',
  UNIQUE KEY uq_astoutbox_reference (reference),
  KEY ix_astoutbox_due (status, next_attempt),
  KEY ix_astoutbox_client (client_id),
  CONSTRAINT fk_astoutbox_client FOREIGN KEY (client_id) REFERENCES astclient (id)
) COMMENT 'Notifications, written in the transaction that makes them due and sent afterwards'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;
