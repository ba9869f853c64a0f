-- Resellers, further ways of identification, capacity and routing, for MariaDB 10.6+ and MySQL 8.

ALTER TABLE astcatalog
  ADD COLUMN traced BIGINT NOT NULL DEFAULT 0 COMMENT 'Raised with version by changes that note the version in the rows they change; a change by hand that raises version alone makes servers read everything';

CREATE TABLE astreseller (
  id            INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name          VARCHAR(80) NOT NULL,
  orig_capacity INT NULL COMMENT 'Most originating calls at once of all its clients together; NULL: no limit, 0: none',
  term_capacity INT NULL COMMENT 'Most terminating calls at once of all its clients together; NULL: no limit, 0: none',
  enabled       TINYINT NOT NULL DEFAULT 1 COMMENT '0: every new call of its clients is refused (DISABLED)',
  date_created  DATETIME(3) NOT NULL,
  UNIQUE KEY uq_astreseller_name (name)
) COMMENT 'Resellers: whose clients share a capacity'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE astroutingplan (
  id           INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  name         VARCHAR(80) NOT NULL,
  route_order  VARCHAR(12) NOT NULL DEFAULT 'priority' COMMENT 'priority (lowest first, then by weight) or least-cost',
  version      BIGINT NOT NULL DEFAULT 1 COMMENT 'Raised by every change of its rules',
  enabled      TINYINT NOT NULL DEFAULT 1 COMMENT '0: calls that would be routed by it are refused (NOROUTE)',
  date_created DATETIME(3) NOT NULL,
  UNIQUE KEY uq_astroutingplan_name (name)
) COMMENT 'Routing plans: which terminators take which calls'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

ALTER TABLE astclient
  ADD COLUMN routing_plan_id INT NULL COMMENT 'Routes of the client''s calls, where the account has no routing plan of its own; NULL: the dialplan''s own trunk',
  ADD COLUMN orig_capacity INT NULL COMMENT 'Most originating calls at once; NULL: no limit, 0: none',
  ADD COLUMN term_capacity INT NULL COMMENT 'Most terminating calls at once; NULL: no limit, 0: none',
  ADD COLUMN version BIGINT NOT NULL DEFAULT 0 COMMENT 'astcatalog.version of the last change of these settings: servers read what is newer than what they have',
  ADD KEY ix_astclient_version (version),
  ADD KEY ix_astclient_reseller (reseller_id),
  ADD CONSTRAINT fk_astclient_plan FOREIGN KEY (routing_plan_id) REFERENCES astroutingplan (id),
  ADD CONSTRAINT fk_astclient_reseller FOREIGN KEY (reseller_id) REFERENCES astreseller (id);

ALTER TABLE astaccount
  ADD COLUMN tech_prefix VARCHAR(20) NOT NULL DEFAULT '' COMMENT 'Digits before the number that tell clients of one gateway apart; not part of the number',
  ADD COLUMN gateways VARCHAR(400) NOT NULL DEFAULT '' COMMENT 'Asterisk servers (nodes) for which the account counts, separated by semicolons; empty: all',
  ADD COLUMN routing_plan_id INT NULL COMMENT 'Comes before the client''s routing plan',
  ADD COLUMN src_policy VARCHAR(10) NOT NULL DEFAULT 'allow-any' COMMENT 'What becomes of a caller''s number that is none of the DIDs: allow-any, reject or overwrite',
  ADD COLUMN dids TEXT NULL COMMENT 'The numbers that the account may present, separated by semicolons; NULL: none',
  ADD COLUMN orig_enabled TINYINT NOT NULL DEFAULT 1 COMMENT '0: the account makes no calls (DISABLED)',
  ADD COLUMN orig_capacity INT NULL COMMENT 'Most originating calls at once; NULL: no limit, 0: none',
  ADD COLUMN terminates TINYINT NOT NULL DEFAULT 0 COMMENT '1: the account has terminator settings, the columns that follow',
  ADD COLUMN term_enabled TINYINT NOT NULL DEFAULT 0 COMMENT '0: no new calls are routed to it',
  ADD COLUMN term_rate_table_id INT NULL COMMENT 'What the terminator charges; NULL: it cannot be routed to',
  ADD COLUMN term_tag VARCHAR(80) NOT NULL DEFAULT '' COMMENT 'The terminator''s own tag',
  ADD COLUMN term_capacity INT NULL COMMENT 'Most terminating calls at once; NULL: no limit, 0: none',
  ADD COLUMN protocol VARCHAR(8) NOT NULL DEFAULT 'PJSIP' COMMENT 'Channel technology: PJSIP, SIP or IAX2',
  ADD COLUMN host VARCHAR(255) NOT NULL DEFAULT '' COMMENT 'Name or address of the terminator',
  ADD COLUMN port INT NULL COMMENT 'NULL: the protocol''s own',
  ADD COLUMN proxy VARCHAR(80) NOT NULL DEFAULT '' COMMENT 'Asterisk''s name for the terminator: PJSIP endpoint or peer',
  ADD COLUMN routing_ip VARCHAR(45) NOT NULL DEFAULT '' COMMENT 'Address to send calls to in place of host',
  ADD COLUMN version BIGINT NOT NULL DEFAULT 0 COMMENT 'astcatalog.version of the last change: servers read what is newer than what they have',
  ADD KEY ix_astaccount_version (version),
  ADD CONSTRAINT fk_astaccount_plan FOREIGN KEY (routing_plan_id) REFERENCES astroutingplan (id),
  ADD CONSTRAINT fk_astaccount_term_rates FOREIGN KEY (term_rate_table_id) REFERENCES astratetable (id);

CREATE TABLE astroute (
  id              INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  routing_plan_id INT NOT NULL COMMENT 'The plan that the rule belongs to',
  prefix          VARCHAR(20) NOT NULL COMMENT 'First digits of the number, with the country code and without +; empty: every number',
  account_id      INT NOT NULL COMMENT 'The terminator',
  priority        INT NOT NULL DEFAULT 1 COMMENT 'The lowest is tried first',
  weight          INT NOT NULL DEFAULT 1 COMMENT 'Share of the calls among rules of one prefix and priority',
  capacity        INT NULL COMMENT 'Most calls at once by this rule; NULL: no limit, 0: none',
  strip           INT NOT NULL DEFAULT 0 COMMENT 'Digits taken off the front of the number',
  prepend         VARCHAR(20) NOT NULL DEFAULT '' COMMENT 'Digits then put there',
  min_margin      DECIMAL(18,6) NULL COMMENT 'Least that the first minute must earn; NULL: no demand',
  enabled         TINYINT NOT NULL DEFAULT 1 COMMENT '0: not in force',
  date_created    DATETIME(3) NOT NULL,
  UNIQUE KEY uq_astroute_rule (routing_plan_id, prefix, account_id),
  KEY ix_astroute_account (account_id),
  CONSTRAINT fk_astroute_plan FOREIGN KEY (routing_plan_id) REFERENCES astroutingplan (id),
  CONSTRAINT fk_astroute_account FOREIGN KEY (account_id) REFERENCES astaccount (id)
) COMMENT 'The rules of the routing plans'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE astblock (
  id           INT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  prefix       VARCHAR(20) NOT NULL COMMENT 'First digits of the number, with the country code and without +',
  client_id    INT NULL COMMENT 'Only this client''s calls; NULL: everybody''s',
  note         VARCHAR(200) NOT NULL DEFAULT '',
  enabled      TINYINT NOT NULL DEFAULT 1 COMMENT '0: not in force',
  date_created DATETIME(3) NOT NULL,
  UNIQUE KEY uq_astblock_prefix (prefix, client_id),
  CONSTRAINT fk_astblock_client FOREIGN KEY (client_id) REFERENCES astclient (id)
) COMMENT 'Prefixes that may not be called'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

CREATE TABLE astcapacity (
  id        VARCHAR(40) NOT NULL PRIMARY KEY COMMENT 'scope:object_id:direction, in the order in which the rows are locked',
  scope     VARCHAR(8) NOT NULL COMMENT 'reseller, client, account or route',
  object_id INT NOT NULL COMMENT 'id in astreseller, astclient, astaccount or astroute',
  direction VARCHAR(4) NOT NULL COMMENT 'orig: calls that it makes, term: calls that are handed to it',
  calls     INT NOT NULL DEFAULT 0 COMMENT 'Open reservations that are counted here'
) COMMENT 'Calls that are up at each level with a capacity of its own; a client''s originating calls are astclient.active_calls'
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin ENGINE=InnoDB;

ALTER TABLE astcreditres
  ADD COLUMN account_id INT NULL COMMENT 'The originating account',
  ADD COLUMN reseller_id INT NULL COMMENT 'The originating client''s reseller when the call was authorized',
  ADD COLUMN route_id INT NULL COMMENT 'The routing rule that the call is on; NULL: the dialplan''s own trunk',
  ADD COLUMN term_account_id INT NULL COMMENT 'The terminator that the call is on',
  ADD COLUMN term_client_id INT NULL COMMENT 'The terminator''s client',
  ADD COLUMN term_reseller_id INT NULL COMMENT 'The terminator''s client''s reseller',
  ADD COLUMN routes_tried VARCHAR(400) NOT NULL DEFAULT '' COMMENT 'astroute.id of the rules before, separated by commas';

ALTER TABLE astcdr
  ADD COLUMN ani VARCHAR(80) NOT NULL DEFAULT '' COMMENT 'The caller''s number as Asterisk told it; callerid is the one that was presented',
  ADD COLUMN source VARCHAR(64) NOT NULL DEFAULT '' COMMENT 'Address and port from which the signalling came',
  ADD COLUMN ident_by VARCHAR(10) NOT NULL DEFAULT '' COMMENT 'What the account was recognised by: name, ip or ani',
  ADD COLUMN tech_prefix VARCHAR(20) NOT NULL DEFAULT '' COMMENT 'The account''s tech prefix, which dialednum begins with',
  ADD COLUMN reseller_id INT NULL COMMENT 'The client''s reseller',
  ADD COLUMN route_id INT NULL COMMENT 'The routing rule that carried the call, or was tried last',
  ADD COLUMN term_account_id INT NULL COMMENT 'The terminator that carried the call, or was tried last',
  ADD COLUMN tried VARCHAR(1000) NOT NULL DEFAULT '' COMMENT 'The terminators that were tried before, each with DIALSTATUS and Q.850 cause',
  ADD COLUMN cost_prefix VARCHAR(20) NOT NULL DEFAULT '' COMMENT 'The prefix of the terminator''s rate',
  ADD COLUMN cost_rate DECIMAL(18,6) NULL COMMENT 'What the terminator charges per minute',
  ADD COLUMN cost_connect_fee DECIMAL(18,6) NULL COMMENT 'What the terminator charges once',
  ADD COLUMN cost_first_increment INT NULL COMMENT 'Seconds that the terminator charges at least',
  ADD COLUMN cost_next_increment INT NULL COMMENT 'Seconds that it charges at a time after that',
  ADD COLUMN cost_grace_seconds INT NULL COMMENT 'A call of at most this length costs nothing',
  ADD COLUMN cost_minimum_charge DECIMAL(18,6) NULL COMMENT 'The least that a charged call costs';

UPDATE astcdr SET ani = callerid;

CREATE INDEX ix_astcdr_terminator ON astcdr (term_account_id, date_created);

UPDATE astcreditres SET account_id = (SELECT c.account_id FROM astcdr c WHERE c.id = astcreditres.call_id);

INSERT INTO astcapacity (id, scope, object_id, direction, calls)
SELECT CONCAT('account:', account_id, ':orig'), 'account', account_id, 'orig', COUNT(*)
FROM astcreditres WHERE account_id IS NOT NULL GROUP BY account_id;
