-- Recovery after a time in which nobody listened, for MariaDB 10.6+ and MySQL 8.

CREATE TABLE astnode (
  name        VARCHAR(64) NOT NULL PRIMARY KEY COMMENT 'Name of the Asterisk server',
  heard_until DATETIME(3) NOT NULL COMMENT 'All that happened there until this instant was heard: a call whose end was not heard was up until then'
) COMMENT 'The Asterisk servers that are listened to'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

ALTER TABLE astcdr
  ADD COLUMN corrected DECIMAL(18,6) NULL COMMENT 'Added to price by later corrections: the client paid price + corrected; NULL: never corrected',
  ADD COLUMN corrected_at DATETIME(3) NULL COMMENT 'When an estimated call was last compared with Asterisk''s own record',
  ADD COLUMN corrected_billsec INT NULL COMMENT 'Seconds to charge by that record, increments applied; NULL: as billsec',
  ADD COLUMN corrected_answeredtime DECIMAL(12,3) NULL COMMENT 'Seconds from answer to end by that record; NULL: as answeredtime',
  ADD COLUMN corrected_ourcost DECIMAL(18,6) NULL COMMENT 'Added to ourcost by later corrections; NULL: nothing';
