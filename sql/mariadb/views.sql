-- Views for people: names instead of numbers, one row per thing that one asks about.
-- For MariaDB 10.6+ and MySQL 8. Run again by every `astcredit init`; rights granted on a view stay.
-- Amounts are exact decimals in the currency of the row, times are UTC, a day is a day in UTC.
-- Amounts of different currencies are never added: each row has one currency.
-- A view cannot carry COMMENTs, so what its columns mean stands here and in docs/ACCOUNTING.md.
-- sqlite/views.sql has the same views with the same columns in the same order.

-- The balance of each client. available: what is free for further calls; NULL: without limit.
CREATE OR REPLACE VIEW v_client_balance AS
SELECT
  id AS client_id,
  name AS client,
  kind,
  currency,
  balance,
  credit_limit,
  reserved,
  balance + credit_limit - reserved AS available,
  active_calls,
  enabled
FROM astclient;

-- The calls that are up now. It begins at the reservations, which are few, not at the CDRs.
-- state: open (being set up) or answered. seconds_up: whole seconds since the answer.
-- seconds_allowed: Asterisk ends the call so long after the answer.
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
  r.client_id
FROM astcreditres r
JOIN astcdr c ON c.id = r.call_id
LEFT JOIN astclient l ON l.id = r.client_id
LEFT JOIN astaccount a ON a.id = c.account_id;

-- Every call. margin is NULL as long as ourcost is: what is not known is not zero.
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
  c.price - c.ourcost AS margin,
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
  c.account_id
FROM astcdr c
LEFT JOIN astclient l ON l.id = c.client_id
LEFT JOIN astaccount a ON a.id = c.account_id;

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
    SUM(COALESCE(billsec, 0)) AS billsec,
    SUM(COALESCE(price, 0)) AS price
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
    SUM(COALESCE(billsec, 0)) AS billsec,
    SUM(COALESCE(price, 0)) AS price
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
    COUNT(ourcost) AS known,
    SUM(price) AS price,
    SUM(ourcost) AS ourcost
  FROM astcdr
  WHERE status = 'completed'
  GROUP BY client_id, DATE(date_created), destination, currency
) d
JOIN astclient l ON l.id = d.client_id;

-- What each client spent in each calendar month (UTC) in which it made calls, by the month in
-- which a call began, and what its calls of that month that are still up have reserved.
-- quota is NULL: no limit of spending is set for clients.
CREATE OR REPLACE VIEW v_quota_usage AS
SELECT
  l.name AS client,
  d.month,
  l.currency,
  CAST(NULL AS DECIMAL(18,6)) AS quota,
  d.spent,
  d.reserved,
  d.client_id
FROM (
  SELECT
    client_id,
    DATE_FORMAT(date_created, '%Y-%m') AS month,
    SUM(COALESCE(price, 0)) AS spent,
    SUM(CASE WHEN status IN ('open', 'answered') THEN reservedamount ELSE 0 END) AS reserved
  FROM astcdr
  GROUP BY client_id, DATE_FORMAT(date_created, '%Y-%m')
) d
JOIN astclient l ON l.id = d.client_id;
