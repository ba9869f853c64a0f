-- Views for people: names instead of numbers, one row per thing that one asks about.
-- For SQLite 3.33+. Run again by every `astcredit init`.
-- The tables hold millionths; these views show amounts as exact decimal TEXT ("12.340000"), so
-- that the same query shows the same on every database. Text is compared as text: write
-- `price + 0 > 10` and `ORDER BY price + 0`, and `ROUND(SUM(price), 6)` for sums.
-- Times are UTC, a day is a day in UTC. Amounts of different currencies are never added.
-- mariadb/views.sql has the same views with the same columns in the same order, and says what
-- the columns mean.

DROP VIEW IF EXISTS v_client_balance;
CREATE VIEW v_client_balance AS
SELECT
  id AS client_id,
  name AS client,
  kind,
  currency,
  printf('%s%d.%06d', substr('-', 1, balance < 0),
      abs(balance) / 1000000, abs(balance) % 1000000) AS balance,
  CASE WHEN credit_limit IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, credit_limit < 0),
      abs(credit_limit) / 1000000, abs(credit_limit) % 1000000) END AS credit_limit,
  printf('%s%d.%06d', substr('-', 1, reserved < 0),
      abs(reserved) / 1000000, abs(reserved) % 1000000) AS reserved,
  CASE WHEN available IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, available < 0),
      abs(available) / 1000000, abs(available) % 1000000) END AS available,
  active_calls,
  enabled
FROM (SELECT *, balance + credit_limit - reserved AS available FROM astclient);

DROP VIEW IF EXISTS v_active_calls;
CREATE VIEW v_active_calls AS
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
  MAX(0, CAST((julianday('now') - julianday(c.answered_at)) * 86400 AS INTEGER)) AS seconds_up,
  r.seconds AS seconds_allowed,
  printf('%s%d.%06d', substr('-', 1, r.reservedamount < 0),
      abs(r.reservedamount) / 1000000, abs(r.reservedamount) % 1000000) AS reserved,
  c.currency,
  c.trunk,
  r.expires_at,
  r.client_id
FROM astcreditres r
JOIN astcdr c ON c.id = r.call_id
LEFT JOIN astclient l ON l.id = r.client_id
LEFT JOIN astaccount a ON a.id = c.account_id;

DROP VIEW IF EXISTS v_cdr;
CREATE VIEW v_cdr AS
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
  CASE WHEN c.rate IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, c.rate < 0),
      abs(c.rate) / 1000000, abs(c.rate) % 1000000) END AS rate,
  CASE WHEN c.connect_fee IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, c.connect_fee < 0),
      abs(c.connect_fee) / 1000000, abs(c.connect_fee) % 1000000) END AS connect_fee,
  c.first_increment,
  c.next_increment,
  c.grace_seconds,
  CASE WHEN c.minimum_charge IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, c.minimum_charge < 0),
      abs(c.minimum_charge) / 1000000, abs(c.minimum_charge) % 1000000) END AS minimum_charge,
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
  CASE WHEN c.price IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, c.price < 0),
      abs(c.price) / 1000000, abs(c.price) % 1000000) END AS price,
  CASE WHEN c.ourcost IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, c.ourcost < 0),
      abs(c.ourcost) / 1000000, abs(c.ourcost) % 1000000) END AS ourcost,
  CASE WHEN (c.price - c.ourcost) IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, (c.price - c.ourcost) < 0),
      abs(c.price - c.ourcost) / 1000000, abs(c.price - c.ourcost) % 1000000) END AS margin,
  printf('%s%d.%06d', substr('-', 1, c.reservedamount < 0),
      abs(c.reservedamount) / 1000000, abs(c.reservedamount) % 1000000) AS reservedamount,
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

DROP VIEW IF EXISTS v_ledger;
CREATE VIEW v_ledger AS
SELECT
  g.id,
  g.date_created,
  l.name AS client,
  l.currency,
  g.seq,
  g.kind,
  printf('%s%d.%06d', substr('-', 1, g.amount < 0),
      abs(g.amount) / 1000000, abs(g.amount) % 1000000) AS amount,
  printf('%s%d.%06d', substr('-', 1, g.balance_after < 0),
      abs(g.balance_after) / 1000000, abs(g.balance_after) % 1000000) AS balance_after,
  g.call_id,
  g.reference,
  g.actor,
  g.note,
  g.client_id
FROM astledger g
JOIN astclient l ON l.id = g.client_id;

-- Here the names are joined before the sums are made: SQLite brings a filter on client to
-- ix_astcdr_client that way.
DROP VIEW IF EXISTS v_daily_client;
CREATE VIEW v_daily_client AS
SELECT
  d.day,
  d.client,
  d.currency,
  d.calls,
  d.answered,
  d.failed,
  d.denied,
  d.billsec,
  ROUND(d.billsec / 60.0, 2) AS minutes,
  CASE WHEN d.price IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, d.price < 0),
      abs(d.price) / 1000000, abs(d.price) % 1000000) END AS price,
  d.client_id
FROM (
  SELECT
    c.client_id,
    l.name AS client,
    DATE(c.date_created) AS day,
    c.currency,
    COUNT(*) AS calls,
    SUM(c.status IN ('answered', 'completed')) AS answered,
    SUM(c.status = 'failed') AS failed,
    SUM(c.status = 'denied') AS denied,
    SUM(COALESCE(c.billsec, 0)) AS billsec,
    SUM(COALESCE(c.price, 0)) AS price
  FROM astcdr c
  JOIN astclient l ON l.id = c.client_id
  GROUP BY c.client_id, l.name, DATE(c.date_created), c.currency
) d;

DROP VIEW IF EXISTS v_daily_destination;
CREATE VIEW v_daily_destination AS
SELECT
  d.day,
  d.destination,
  d.currency,
  d.calls,
  d.answered,
  d.failed,
  d.denied,
  d.billsec,
  ROUND(d.billsec / 60.0, 2) AS minutes,
  CASE WHEN d.price IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, d.price < 0),
      abs(d.price) / 1000000, abs(d.price) % 1000000) END AS price
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

DROP VIEW IF EXISTS v_margin;
CREATE VIEW v_margin AS
SELECT
  d.day,
  d.client,
  d.destination,
  d.currency,
  d.calls,
  d.cost_unknown,
  CASE WHEN d.price IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, d.price < 0),
      abs(d.price) / 1000000, abs(d.price) % 1000000) END AS price,
  CASE WHEN d.ourcost IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, d.ourcost < 0),
      abs(d.ourcost) / 1000000, abs(d.ourcost) % 1000000) END AS ourcost,
  CASE WHEN (d.price - d.ourcost) IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, (d.price - d.ourcost) < 0),
      abs(d.price - d.ourcost) / 1000000, abs(d.price - d.ourcost) % 1000000) END AS margin,
  d.client_id
FROM (
  SELECT
    c.client_id,
    l.name AS client,
    DATE(c.date_created) AS day,
    c.destination,
    c.currency,
    COUNT(*) AS calls,
    COUNT(*) - COUNT(c.ourcost) AS cost_unknown,
    SUM(c.price) AS price,
    CASE WHEN COUNT(*) = COUNT(c.ourcost) THEN SUM(c.ourcost) END AS ourcost
  FROM astcdr c
  JOIN astclient l ON l.id = c.client_id
  WHERE c.status = 'completed'
  GROUP BY c.client_id, l.name, DATE(c.date_created), c.destination, c.currency
) d;

DROP VIEW IF EXISTS v_quota_usage;
CREATE VIEW v_quota_usage AS
SELECT
  d.client,
  d.month,
  d.currency,
  NULL AS quota,
  printf('%s%d.%06d', substr('-', 1, d.spent < 0),
      abs(d.spent) / 1000000, abs(d.spent) % 1000000) AS spent,
  printf('%s%d.%06d', substr('-', 1, d.reserved < 0),
      abs(d.reserved) / 1000000, abs(d.reserved) % 1000000) AS reserved,
  d.client_id
FROM (
  SELECT
    c.client_id,
    l.name AS client,
    l.currency,
    strftime('%Y-%m', c.date_created) AS month,
    SUM(COALESCE(c.price, 0)) AS spent,
    SUM(CASE WHEN c.status IN ('open', 'answered') THEN c.reservedamount ELSE 0 END) AS reserved
  FROM astcdr c
  JOIN astclient l ON l.id = c.client_id
  GROUP BY c.client_id, l.name, l.currency, strftime('%Y-%m', c.date_created)
) d;
