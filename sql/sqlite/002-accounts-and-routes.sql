-- Resellers, further ways of identification, capacity and routing, for SQLite 3.33+.

-- Raised with version by changes that note the version in the rows they change; a change by hand that raises version alone makes servers read everything
ALTER TABLE astcatalog ADD COLUMN traced INTEGER NOT NULL DEFAULT 0;

-- Resellers: whose clients share a capacity
CREATE TABLE astreseller (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  name          TEXT NOT NULL,
  orig_capacity INTEGER NULL, -- Most originating calls at once of all its clients together; NULL: no limit, 0: none
  term_capacity INTEGER NULL, -- Most terminating calls at once of all its clients together; NULL: no limit, 0: none
  enabled       INTEGER NOT NULL DEFAULT 1, -- 0: every new call of its clients is refused (DISABLED)
  date_created  TEXT NOT NULL
);
CREATE UNIQUE INDEX uq_astreseller_name ON astreseller (name);

-- Routing plans: which terminators take which calls
CREATE TABLE astroutingplan (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  name         TEXT NOT NULL,
  route_order  TEXT NOT NULL DEFAULT 'priority', -- priority (lowest first, then by weight) or least-cost
  version      INTEGER NOT NULL DEFAULT 1, -- Raised by every change of its rules
  enabled      INTEGER NOT NULL DEFAULT 1, -- 0: calls that would be routed by it are refused (NOROUTE)
  date_created TEXT NOT NULL
);
CREATE UNIQUE INDEX uq_astroutingplan_name ON astroutingplan (name);

-- Routes of the client's calls, where the account has no routing plan of its own; NULL: the dialplan's own trunk
ALTER TABLE astclient ADD COLUMN routing_plan_id INTEGER NULL CONSTRAINT fk_astclient_plan REFERENCES astroutingplan (id);
-- Most originating calls at once; NULL: no limit, 0: none
ALTER TABLE astclient ADD COLUMN orig_capacity INTEGER NULL;
-- Most terminating calls at once; NULL: no limit, 0: none
ALTER TABLE astclient ADD COLUMN term_capacity INTEGER NULL;
-- astcatalog.version of the last change of these settings: servers read what is newer than what they have
ALTER TABLE astclient ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
CREATE INDEX ix_astclient_version ON astclient (version);
CREATE INDEX ix_astclient_reseller ON astclient (reseller_id);

-- Digits before the number that tell clients of one gateway apart; not part of the number
ALTER TABLE astaccount ADD COLUMN tech_prefix TEXT NOT NULL DEFAULT '';
-- Asterisk servers (nodes) for which the account counts, separated by semicolons; empty: all
ALTER TABLE astaccount ADD COLUMN gateways TEXT NOT NULL DEFAULT '';
-- Comes before the client's routing plan
ALTER TABLE astaccount ADD COLUMN routing_plan_id INTEGER NULL CONSTRAINT fk_astaccount_plan REFERENCES astroutingplan (id);
-- What becomes of a caller's number that is none of the DIDs: allow-any, reject or overwrite
ALTER TABLE astaccount ADD COLUMN src_policy TEXT NOT NULL DEFAULT 'allow-any';
-- The numbers that the account may present, separated by semicolons; NULL: none
ALTER TABLE astaccount ADD COLUMN dids TEXT NULL;
-- 0: the account makes no calls (DISABLED)
ALTER TABLE astaccount ADD COLUMN orig_enabled INTEGER NOT NULL DEFAULT 1;
-- Most originating calls at once; NULL: no limit, 0: none
ALTER TABLE astaccount ADD COLUMN orig_capacity INTEGER NULL;
-- 1: the account has terminator settings, the columns that follow
ALTER TABLE astaccount ADD COLUMN terminates INTEGER NOT NULL DEFAULT 0;
-- 0: no new calls are routed to it
ALTER TABLE astaccount ADD COLUMN term_enabled INTEGER NOT NULL DEFAULT 0;
-- What the terminator charges; NULL: it cannot be routed to
ALTER TABLE astaccount ADD COLUMN term_rate_table_id INTEGER NULL CONSTRAINT fk_astaccount_term_rates REFERENCES astratetable (id);
ALTER TABLE astaccount ADD COLUMN term_tag TEXT NOT NULL DEFAULT '';
-- Most terminating calls at once; NULL: no limit, 0: none
ALTER TABLE astaccount ADD COLUMN term_capacity INTEGER NULL;
-- Channel technology: PJSIP, SIP or IAX2
ALTER TABLE astaccount ADD COLUMN protocol TEXT NOT NULL DEFAULT 'PJSIP';
-- Name or address of the terminator
ALTER TABLE astaccount ADD COLUMN host TEXT NOT NULL DEFAULT '';
-- NULL: the protocol's own
ALTER TABLE astaccount ADD COLUMN port INTEGER NULL;
-- Asterisk's name for the terminator: PJSIP endpoint or peer
ALTER TABLE astaccount ADD COLUMN proxy TEXT NOT NULL DEFAULT '';
-- Address to send calls to in place of host
ALTER TABLE astaccount ADD COLUMN routing_ip TEXT NOT NULL DEFAULT '';
-- astcatalog.version of the last change: servers read what is newer than what they have
ALTER TABLE astaccount ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
CREATE INDEX ix_astaccount_version ON astaccount (version);

-- The rules of the routing plans
CREATE TABLE astroute (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  routing_plan_id INTEGER NOT NULL,
  prefix          TEXT NOT NULL, -- First digits of the number, with the country code and without +; empty: every number
  account_id      INTEGER NOT NULL, -- The terminator
  priority        INTEGER NOT NULL DEFAULT 1, -- The lowest is tried first
  weight          INTEGER NOT NULL DEFAULT 1, -- Share of the calls among rules of one prefix and priority
  capacity        INTEGER NULL, -- Most calls at once by this rule; NULL: no limit, 0: none
  strip           INTEGER NOT NULL DEFAULT 0, -- Digits taken off the front of the number
  prepend         TEXT NOT NULL DEFAULT '', -- Digits then put there
  min_margin      INTEGER NULL, -- Least that the first minute must earn; NULL: no demand
  enabled         INTEGER NOT NULL DEFAULT 1,
  date_created    TEXT NOT NULL,
  CONSTRAINT fk_astroute_plan FOREIGN KEY (routing_plan_id) REFERENCES astroutingplan (id),
  CONSTRAINT fk_astroute_account FOREIGN KEY (account_id) REFERENCES astaccount (id)
);
CREATE UNIQUE INDEX uq_astroute_rule ON astroute (routing_plan_id, prefix, account_id);
CREATE INDEX ix_astroute_account ON astroute (account_id);

-- Prefixes that may not be called
CREATE TABLE astblock (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  prefix       TEXT NOT NULL, -- First digits of the number, with the country code and without +
  client_id    INTEGER NULL, -- Only this client's calls; NULL: everybody's
  note         TEXT NOT NULL DEFAULT '',
  enabled      INTEGER NOT NULL DEFAULT 1,
  date_created TEXT NOT NULL,
  CONSTRAINT fk_astblock_client FOREIGN KEY (client_id) REFERENCES astclient (id)
);
CREATE UNIQUE INDEX uq_astblock_prefix ON astblock (prefix, client_id);

-- Calls that are up at each level with a capacity of its own; a client's originating calls are astclient.active_calls
CREATE TABLE astcapacity (
  id        TEXT NOT NULL PRIMARY KEY, -- scope:object_id:direction, in the order in which the rows are locked
  scope     TEXT NOT NULL, -- reseller, client, account or route
  object_id INTEGER NOT NULL, -- id in astreseller, astclient, astaccount or astroute
  direction TEXT NOT NULL, -- orig: calls that it makes, term: calls that are handed to it
  calls     INTEGER NOT NULL DEFAULT 0 -- Open reservations that are counted here
);

-- The originating account
ALTER TABLE astcreditres ADD COLUMN account_id INTEGER NULL;
-- The originating client's reseller when the call was authorized
ALTER TABLE astcreditres ADD COLUMN reseller_id INTEGER NULL;
-- The routing rule that the call is on; NULL: the dialplan's own trunk
ALTER TABLE astcreditres ADD COLUMN route_id INTEGER NULL;
-- The terminator that the call is on
ALTER TABLE astcreditres ADD COLUMN term_account_id INTEGER NULL;
-- The terminator's client
ALTER TABLE astcreditres ADD COLUMN term_client_id INTEGER NULL;
-- The terminator's client's reseller
ALTER TABLE astcreditres ADD COLUMN term_reseller_id INTEGER NULL;
-- astroute.id of the rules before, separated by commas
ALTER TABLE astcreditres ADD COLUMN routes_tried TEXT NOT NULL DEFAULT '';

-- The caller's number as Asterisk told it; callerid is the one that was presented
ALTER TABLE astcdr ADD COLUMN ani TEXT NOT NULL DEFAULT '';
-- Address and port from which the signalling came
ALTER TABLE astcdr ADD COLUMN source TEXT NOT NULL DEFAULT '';
-- What the account was recognised by: name, ip or ani
ALTER TABLE astcdr ADD COLUMN ident_by TEXT NOT NULL DEFAULT '';
-- The account's tech prefix, which dialednum begins with
ALTER TABLE astcdr ADD COLUMN tech_prefix TEXT NOT NULL DEFAULT '';
-- The client's reseller
ALTER TABLE astcdr ADD COLUMN reseller_id INTEGER NULL;
-- The routing rule that carried the call, or was tried last
ALTER TABLE astcdr ADD COLUMN route_id INTEGER NULL;
-- The terminator that carried the call, or was tried last
ALTER TABLE astcdr ADD COLUMN term_account_id INTEGER NULL;
-- The terminators that were tried before, each with DIALSTATUS and Q.850 cause
ALTER TABLE astcdr ADD COLUMN tried TEXT NOT NULL DEFAULT '';
-- The prefix of the terminator's rate
ALTER TABLE astcdr ADD COLUMN cost_prefix TEXT NOT NULL DEFAULT '';
-- What the terminator charges per minute
ALTER TABLE astcdr ADD COLUMN cost_rate INTEGER NULL;
ALTER TABLE astcdr ADD COLUMN cost_connect_fee INTEGER NULL;
ALTER TABLE astcdr ADD COLUMN cost_first_increment INTEGER NULL;
ALTER TABLE astcdr ADD COLUMN cost_next_increment INTEGER NULL;
ALTER TABLE astcdr ADD COLUMN cost_grace_seconds INTEGER NULL;
ALTER TABLE astcdr ADD COLUMN cost_minimum_charge INTEGER NULL;

UPDATE astcdr SET ani = callerid;

CREATE INDEX ix_astcdr_terminator ON astcdr (term_account_id, date_created);

UPDATE astcreditres SET account_id = (SELECT c.account_id FROM astcdr c WHERE c.id = astcreditres.call_id);

INSERT INTO astcapacity (id, scope, object_id, direction, calls)
SELECT 'account:' || account_id || ':orig', 'account', account_id, 'orig', COUNT(*)
FROM astcreditres WHERE account_id IS NOT NULL GROUP BY account_id;
