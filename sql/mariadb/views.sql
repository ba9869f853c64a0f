-- Views for people: names instead of numbers, one row per thing that one asks about.
-- For MariaDB 10.6+ and MySQL 8. Run again by every `astcredit init`; rights granted on a view stay.
-- Amounts are exact decimals in the currency of the row, times are UTC, a day is a day in UTC.
-- Amounts of different currencies are never added: each row has one currency.
-- A view cannot carry COMMENTs, so what its columns mean stands here and in docs/ACCOUNTING.md.
-- sqlite/views.sql has the same views with the same columns in the same order.

-- The balance of each client. available: what is free for further calls; NULL: without limit.
CREATE OR REPLACE VIEW v_client_balance AS
SELECT
  c.id AS client_id,
  c.name AS client,
  c.kind,
  c.currency,
  c.balance,
  c.credit_limit,
  c.reserved,
  c.balance + c.credit_limit - c.reserved AS available,
  c.active_calls,
  c.enabled,
  r.name AS reseller
FROM astclient c
LEFT JOIN astreseller r ON r.id = c.reseller_id;

-- How many calls are up at each level that has a limit or calls, and how many may be.
-- scope: reseller (all its clients together), client, account or route (a rule of a routing plan).
-- direction: orig (calls that it makes) or term (calls that are handed to it).
-- capacity is NULL where there is no limit; percent: whole per cent of it in use, 100 if it is 0.
-- object_id: id in astreseller, astclient, astaccount or astroute.
CREATE OR REPLACE VIEW v_capacity AS
SELECT
  scope,
  name,
  direction,
  calls,
  capacity,
  CASE WHEN capacity = 0 THEN 100 ELSE calls * 100 DIV capacity END AS percent,
  object_id
FROM (
  SELECT 'reseller' AS scope, r.name, 'orig' AS direction, COALESCE(k.calls, 0) AS calls,
    r.orig_capacity AS capacity, r.id AS object_id
  FROM astreseller r
  LEFT JOIN astcapacity k ON k.id = CONCAT('reseller:', r.id, ':orig')
  UNION ALL
  SELECT 'reseller', r.name, 'term', COALESCE(k.calls, 0), r.term_capacity, r.id
  FROM astreseller r
  LEFT JOIN astcapacity k ON k.id = CONCAT('reseller:', r.id, ':term')
  UNION ALL
  SELECT 'client', c.name, 'orig', c.active_calls, c.orig_capacity, c.id
  FROM astclient c
  UNION ALL
  SELECT 'client', c.name, 'term', COALESCE(k.calls, 0), c.term_capacity, c.id
  FROM astclient c
  LEFT JOIN astcapacity k ON k.id = CONCAT('client:', c.id, ':term')
  UNION ALL
  SELECT 'account', a.name, 'orig', COALESCE(k.calls, 0), a.orig_capacity, a.id
  FROM astaccount a
  LEFT JOIN astcapacity k ON k.id = CONCAT('account:', a.id, ':orig')
  UNION ALL
  SELECT 'account', a.name, 'term', COALESCE(k.calls, 0),
    CASE WHEN a.terminates = 1 THEN a.term_capacity END, a.id
  FROM astaccount a
  LEFT JOIN astcapacity k ON k.id = CONCAT('account:', a.id, ':term')
  UNION ALL
  SELECT 'route',
    CONCAT(p.name, ' ', CASE t.prefix WHEN '' THEN 'any' ELSE t.prefix END, ' ', a.name),
    'term', COALESCE(k.calls, 0), t.capacity, t.id
  FROM astroute t
  JOIN astroutingplan p ON p.id = t.routing_plan_id
  JOIN astaccount a ON a.id = t.account_id
  LEFT JOIN astcapacity k ON k.id = CONCAT('route:', t.id, ':term')
) levels
WHERE capacity IS NOT NULL OR calls <> 0;

-- The calls that are up now. It begins at the reservations, which are few, not at the CDRs.
-- state: open (being set up) or answered. seconds_up: whole seconds since the answer.
-- seconds_allowed: Asterisk ends the call so long after the answer.
-- routing_plan, route_prefix (* for every number) and terminator: the route that the call is on;
-- NULL on the dialplan's own trunk. callerid is the number presented, ani the caller's own.
-- source: address and port from which the signalling came.
CREATE OR REPLACE VIEW v_active_calls AS
SELECT
  r.call_id AS id,
  r.node,
  l.name AS client,
  a.name AS account,
  r.accountcode,
  c.callerid,
  c.callednum AS number,
  c.destination,
  c.status AS state,
  r.date_created,
  c.answered_at,
  GREATEST(0, TIMESTAMPDIFF(SECOND, c.answered_at, UTC_TIMESTAMP(3))) AS seconds_up,
  r.seconds AS seconds_allowed,
  r.reservedamount AS reserved,
  c.currency,
  c.trunk,
  r.expires_at,
  r.client_id,
  s.name AS reseller,
  p.name AS routing_plan,
  CASE t.prefix WHEN '' THEN '*' ELSE t.prefix END AS route_prefix,
  x.name AS terminator,
  c.ani,
  c.source
FROM astcreditres r
JOIN astcdr c ON c.id = r.call_id
LEFT JOIN astclient l ON l.id = r.client_id
LEFT JOIN astaccount a ON a.id = c.account_id
LEFT JOIN astreseller s ON s.id = r.reseller_id
LEFT JOIN astroute t ON t.id = r.route_id
LEFT JOIN astroutingplan p ON p.id = t.routing_plan_id
LEFT JOIN astaccount x ON x.id = r.term_account_id;

-- Every call. margin is NULL as long as ourcost is: what is not known is not zero.
-- reseller: the client's when the call was made. ident_by: what the account was recognised by.
-- routing_plan, route_prefix (* for every number), terminator: the route that carried the call, or
-- was tried last; NULL on the dialplan's own trunk. tried: the terminators before, each with
-- DIALSTATUS and Q.850 cause. cost_…: the terminator's rate, as rate … is the client's.
-- price is what was charged at the end; the client paid price + corrected, and margin says so.
CREATE OR REPLACE VIEW v_cdr AS
SELECT
  c.id,
  c.date_created,
  c.status,
  l.name AS client,
  a.name AS account,
  c.accountcode,
  c.callerid,
  c.dialednum,
  c.callednum,
  c.prefix,
  c.destination,
  c.currency,
  c.rate,
  c.connect_fee,
  c.first_increment,
  c.next_increment,
  c.grace_seconds,
  c.minimum_charge,
  c.trunk,
  c.denied,
  c.reason,
  c.dialstatus,
  c.hangupcause,
  c.dialed_at,
  c.answered_at,
  c.ended_at,
  c.dialedtime,
  c.answeredtime,
  c.seconds,
  c.billsec,
  c.price,
  c.ourcost,
  c.price + COALESCE(c.corrected, 0)
    - COALESCE(c.ourcost + COALESCE(c.corrected_ourcost, 0), c.corrected_ourcost) AS margin,
  c.reservedamount,
  c.overrun_ms,
  c.settled_by,
  c.estimated,
  c.note,
  c.node,
  c.channel,
  c.uniqueid,
  c.linkedid,
  c.leg_uniqueid,
  c.client_id,
  c.account_id,
  s.name AS reseller,
  c.ani,
  c.source,
  c.ident_by,
  c.tech_prefix,
  p.name AS routing_plan,
  CASE t.prefix WHEN '' THEN '*' ELSE t.prefix END AS route_prefix,
  x.name AS terminator,
  c.tried,
  c.cost_prefix,
  c.cost_rate,
  c.cost_connect_fee,
  c.cost_first_increment,
  c.cost_next_increment,
  c.cost_grace_seconds,
  c.cost_minimum_charge,
  c.corrected,
  c.corrected_at,
  c.corrected_billsec,
  c.corrected_answeredtime,
  c.corrected_ourcost
FROM astcdr c
LEFT JOIN astclient l ON l.id = c.client_id
LEFT JOIN astaccount a ON a.id = c.account_id
LEFT JOIN astreseller s ON s.id = c.reseller_id
LEFT JOIN astroute t ON t.id = c.route_id
LEFT JOIN astroutingplan p ON p.id = t.routing_plan_id
LEFT JOIN astaccount x ON x.id = c.term_account_id;

-- Every change of every balance, with the client's name and currency.
CREATE OR REPLACE VIEW v_ledger AS
SELECT
  g.id,
  g.date_created,
  l.name AS client,
  l.currency,
  g.seq,
  g.kind,
  g.amount,
  g.balance_after,
  g.call_id,
  g.reference,
  g.actor,
  g.note,
  g.client_id
FROM astledger g
JOIN astclient l ON l.id = g.client_id;

-- Calls of each client and day. calls counts every CDR, so that
-- calls = answered + failed + denied + those that are still being set up.
-- Calls of which no account was recognised have no client: see v_daily_destination.
-- The sums are made before the names are joined: MariaDB then brings a filter on client to
-- ix_astcdr_client, and without a filter reads the table once.
CREATE OR REPLACE VIEW v_daily_client AS
SELECT
  d.day,
  l.name AS client,
  d.currency,
  d.calls,
  d.answered,
  d.failed,
  d.denied,
  d.billsec,
  ROUND(d.billsec / 60, 2) AS minutes,
  d.price,
  d.client_id
FROM (
  SELECT
    client_id,
    DATE(date_created) AS day,
    currency,
    COUNT(*) AS calls,
    SUM(status IN ('answered', 'completed')) AS answered,
    SUM(status = 'failed') AS failed,
    SUM(status = 'denied') AS denied,
    SUM(COALESCE(corrected_billsec, billsec, 0)) AS billsec,
    SUM(COALESCE(price, 0) + COALESCE(corrected, 0)) AS price
  FROM astcdr
  GROUP BY client_id, DATE(date_created), currency
) d
JOIN astclient l ON l.id = d.client_id;

-- Calls to each destination and day, those that were denied before a rate was found under ''.
CREATE OR REPLACE VIEW v_daily_destination AS
SELECT
  d.day,
  d.destination,
  d.currency,
  d.calls,
  d.answered,
  d.failed,
  d.denied,
  d.billsec,
  ROUND(d.billsec / 60, 2) AS minutes,
  d.price
FROM (
  SELECT
    DATE(date_created) AS day,
    destination,
    currency,
    COUNT(*) AS calls,
    SUM(status IN ('answered', 'completed')) AS answered,
    SUM(status = 'failed') AS failed,
    SUM(status = 'denied') AS denied,
    SUM(COALESCE(corrected_billsec, billsec, 0)) AS billsec,
    SUM(COALESCE(price, 0) + COALESCE(corrected, 0)) AS price
  FROM astcdr
  GROUP BY DATE(date_created), destination, currency
) d;

-- What completed calls brought and cost, for each day, client and destination.
-- cost_unknown: calls whose ourcost is not known. While there is one, ourcost and margin of the
-- row are NULL: a sum of which a part is missing is not known either.
CREATE OR REPLACE VIEW v_margin AS
SELECT
  d.day,
  l.name AS client,
  d.destination,
  d.currency,
  d.calls,
  d.calls - d.known AS cost_unknown,
  d.price,
  CASE WHEN d.known = d.calls THEN d.ourcost END AS ourcost,
  CASE WHEN d.known = d.calls THEN d.price - d.ourcost END AS margin,
  d.client_id
FROM (
  SELECT
    client_id,
    DATE(date_created) AS day,
    destination,
    currency,
    COUNT(*) AS calls,
    COUNT(COALESCE(ourcost, corrected_ourcost)) AS known,
    SUM(COALESCE(price, 0) + COALESCE(corrected, 0)) AS price,
    SUM(COALESCE(ourcost + COALESCE(corrected_ourcost, 0), corrected_ourcost)) AS ourcost
  FROM astcdr
  WHERE status = 'completed' OR corrected IS NOT NULL
  GROUP BY client_id, DATE(date_created), destination, currency
) d
JOIN astclient l ON l.id = d.client_id;

-- What each terminator carried, for each day and destination of the clients' rates.
-- calls: those that ended at it or are up there; a call that went on to another terminator is the
-- other's (v_cdr.tried tells of it). answeredtime: seconds talked. asr_percent: answered of those
-- answered or failed; acd_seconds: average time talked. term_client: whose account it is.
-- ourcost and margin are NULL where a completed call has no known cost, as in v_margin.
CREATE OR REPLACE VIEW v_terminator AS
SELECT
  d.day,
  x.name AS terminator,
  d.destination,
  d.currency,
  d.calls,
  d.answered,
  d.failed,
  d.answeredtime,
  CASE WHEN d.known = d.completed THEN d.ourcost END AS ourcost,
  d.price,
  CASE WHEN d.known = d.completed THEN d.price - d.ourcost END AS margin,
  ROUND(100.0 * d.answered / NULLIF(d.answered + d.failed, 0), 1) AS asr_percent,
  ROUND(d.answeredtime / NULLIF(d.completed, 0), 1) AS acd_seconds,
  l.name AS term_client,
  d.term_account_id
FROM (
  SELECT
    term_account_id,
    DATE(date_created) AS day,
    destination,
    currency,
    COUNT(*) AS calls,
    SUM(status IN ('answered', 'completed')) AS answered,
    SUM(status = 'failed') AS failed,
    SUM(status = 'completed') AS completed,
    COUNT(ourcost) AS known,
    SUM(COALESCE(corrected_answeredtime, answeredtime, 0)) AS answeredtime,
    SUM(COALESCE(price, 0) + COALESCE(corrected, 0)) AS price,
    SUM(COALESCE(ourcost, 0) + COALESCE(corrected_ourcost, 0)) AS ourcost
  FROM astcdr
  WHERE term_account_id IS NOT NULL
  GROUP BY term_account_id, DATE(date_created), destination, currency
) d
JOIN astaccount x ON x.id = d.term_account_id
JOIN astclient l ON l.id = x.client_id;

-- What each client spent in each month and, of clients with a quota, each day, by the period in
-- which a call began (in the client's time zone), and what its calls of that period that are still
-- up have reserved.
-- month: the period, NULL for days, so that WHERE month = … never counts a call twice. quota: the
-- one that was in force when the row last changed; NULL: none, or a client that never had one.
-- waived: spent before a reset, no longer counted against the quota. percent: spent and reserved,
-- without what was waived, in whole per cent of the quota, rounded down. first_over_at and
-- last_over_at: when what was spent first and last was past a threshold. blocked_at: since when
-- calls that have ended leave nothing, or less than a call that was refused costs at least.
CREATE OR REPLACE VIEW v_quota_usage AS
SELECT
  l.name AS client,
  CASE WHEN CHAR_LENGTH(q.period) = 7 THEN q.period END AS month,
  l.currency,
  q.quota,
  q.spent,
  q.reserved,
  q.client_id,
  q.period,
  CASE WHEN CHAR_LENGTH(q.period) = 7 THEN 'monthly' ELSE 'daily' END AS kind,
  GREATEST(0, q.quota - q.spent + q.waived - q.reserved) AS remaining,
  CASE q.quota WHEN 0 THEN 100 ELSE (q.spent - q.waived + q.reserved) * 100 DIV q.quota END
    AS percent,
  q.waived,
  q.first_over_at,
  q.last_over_at,
  q.blocked_at
FROM astquota q
JOIN astclient l ON l.id = q.client_id
UNION ALL
SELECT
  l.name,
  d.month,
  l.currency,
  NULL,
  d.spent,
  d.reserved,
  d.client_id,
  d.month,
  'monthly',
  NULL,
  NULL,
  0,
  NULL,
  NULL,
  NULL
FROM (
  SELECT
    client_id,
    quota_month AS month,
    SUM(COALESCE(price, 0) + COALESCE(corrected, 0)) AS spent,
    SUM(CASE WHEN status IN ('open', 'answered') THEN reservedamount ELSE 0 END) AS reserved
  FROM astcdr
  GROUP BY client_id, quota_month
) d
JOIN astclient l ON l.id = d.client_id
LEFT JOIN astquota q ON q.client_id = d.client_id AND q.period = d.month
WHERE q.client_id IS NULL;
