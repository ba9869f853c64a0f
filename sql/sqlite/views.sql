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
  enabled,
  reseller
FROM (
  SELECT c.*, c.balance + c.credit_limit - c.reserved AS available, r.name AS reseller
  FROM astclient c
  LEFT JOIN astreseller r ON r.id = c.reseller_id
);

DROP VIEW IF EXISTS v_capacity;
CREATE VIEW v_capacity AS
SELECT
  scope,
  name,
  direction,
  calls,
  capacity,
  CASE WHEN capacity = 0 THEN 100 ELSE calls * 100 / capacity END AS percent,
  object_id
FROM (
  SELECT 'reseller' AS scope, r.name, 'orig' AS direction, COALESCE(k.calls, 0) AS calls,
    r.orig_capacity AS capacity, r.id AS object_id
  FROM astreseller r
  LEFT JOIN astcapacity k ON k.id = 'reseller:' || r.id || ':orig'
  UNION ALL
  SELECT 'reseller', r.name, 'term', COALESCE(k.calls, 0), r.term_capacity, r.id
  FROM astreseller r
  LEFT JOIN astcapacity k ON k.id = 'reseller:' || r.id || ':term'
  UNION ALL
  SELECT 'client', c.name, 'orig', c.active_calls, c.orig_capacity, c.id
  FROM astclient c
  UNION ALL
  SELECT 'client', c.name, 'term', COALESCE(k.calls, 0), c.term_capacity, c.id
  FROM astclient c
  LEFT JOIN astcapacity k ON k.id = 'client:' || c.id || ':term'
  UNION ALL
  SELECT 'account', a.name, 'orig', COALESCE(k.calls, 0), a.orig_capacity, a.id
  FROM astaccount a
  LEFT JOIN astcapacity k ON k.id = 'account:' || a.id || ':orig'
  UNION ALL
  SELECT 'account', a.name, 'term', COALESCE(k.calls, 0),
    CASE WHEN a.terminates = 1 THEN a.term_capacity END, a.id
  FROM astaccount a
  LEFT JOIN astcapacity k ON k.id = 'account:' || a.id || ':term'
  UNION ALL
  SELECT 'route',
    p.name || ' ' || CASE t.prefix WHEN '' THEN 'any' ELSE t.prefix END || ' ' || a.name,
    'term', COALESCE(k.calls, 0), t.capacity, t.id
  FROM astroute t
  JOIN astroutingplan p ON p.id = t.routing_plan_id
  JOIN astaccount a ON a.id = t.account_id
  LEFT JOIN astcapacity k ON k.id = 'route:' || t.id || ':term'
)
WHERE capacity IS NOT NULL OR calls <> 0;

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
  (SELECT CASE WHEN m IS NOT NULL THEN printf('%s%d.%06d', substr('-', 1, m < 0),
      abs(m) / 1000000, abs(m) % 1000000) END
    FROM (SELECT c.price + COALESCE(c.corrected, 0)
      - COALESCE(c.ourcost + COALESCE(c.corrected_ourcost, 0), c.corrected_ourcost) AS m)) AS margin,
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
  CASE WHEN c.cost_rate IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, c.cost_rate < 0),
      abs(c.cost_rate) / 1000000, abs(c.cost_rate) % 1000000) END AS cost_rate,
  CASE WHEN c.cost_connect_fee IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, c.cost_connect_fee < 0),
      abs(c.cost_connect_fee) / 1000000, abs(c.cost_connect_fee) % 1000000) END AS cost_connect_fee,
  c.cost_first_increment,
  c.cost_next_increment,
  c.cost_grace_seconds,
  CASE WHEN c.cost_minimum_charge IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, c.cost_minimum_charge < 0),
      abs(c.cost_minimum_charge) / 1000000, abs(c.cost_minimum_charge) % 1000000) END AS cost_minimum_charge,
  CASE WHEN c.corrected IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, c.corrected < 0),
      abs(c.corrected) / 1000000, abs(c.corrected) % 1000000) END AS corrected,
  c.corrected_at,
  c.corrected_billsec,
  c.corrected_answeredtime,
  CASE WHEN c.corrected_ourcost IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, c.corrected_ourcost < 0),
      abs(c.corrected_ourcost) / 1000000, abs(c.corrected_ourcost) % 1000000) END AS corrected_ourcost
FROM astcdr c
LEFT JOIN astclient l ON l.id = c.client_id
LEFT JOIN astaccount a ON a.id = c.account_id
LEFT JOIN astreseller s ON s.id = c.reseller_id
LEFT JOIN astroute t ON t.id = c.route_id
LEFT JOIN astroutingplan p ON p.id = t.routing_plan_id
LEFT JOIN astaccount x ON x.id = c.term_account_id;

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
    SUM(COALESCE(c.corrected_billsec, c.billsec, 0)) AS billsec,
    SUM(COALESCE(c.price, 0) + COALESCE(c.corrected, 0)) AS price
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
    SUM(COALESCE(corrected_billsec, billsec, 0)) AS billsec,
    SUM(COALESCE(price, 0) + COALESCE(corrected, 0)) AS price
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
    COUNT(*) - COUNT(COALESCE(c.ourcost, c.corrected_ourcost)) AS cost_unknown,
    SUM(COALESCE(c.price, 0) + COALESCE(c.corrected, 0)) AS price,
    CASE WHEN COUNT(*) = COUNT(COALESCE(c.ourcost, c.corrected_ourcost)) THEN
      SUM(COALESCE(c.ourcost + COALESCE(c.corrected_ourcost, 0), c.corrected_ourcost)) END AS ourcost
  FROM astcdr c
  JOIN astclient l ON l.id = c.client_id
  WHERE c.status = 'completed' OR c.corrected IS NOT NULL
  GROUP BY c.client_id, l.name, DATE(c.date_created), c.destination, c.currency
) d;

DROP VIEW IF EXISTS v_terminator;
CREATE VIEW v_terminator AS
SELECT
  d.day,
  d.terminator,
  d.destination,
  d.currency,
  d.calls,
  d.answered,
  d.failed,
  d.answeredtime,
  CASE WHEN d.known = d.completed THEN
    printf('%s%d.%06d', substr('-', 1, d.ourcost < 0),
      abs(d.ourcost) / 1000000, abs(d.ourcost) % 1000000) END AS ourcost,
  printf('%s%d.%06d', substr('-', 1, d.price < 0),
      abs(d.price) / 1000000, abs(d.price) % 1000000) AS price,
  CASE WHEN d.known = d.completed THEN
    printf('%s%d.%06d', substr('-', 1, (d.price - d.ourcost) < 0),
      abs(d.price - d.ourcost) / 1000000, abs(d.price - d.ourcost) % 1000000) END AS margin,
  ROUND(100.0 * d.answered / NULLIF(d.answered + d.failed, 0), 1) AS asr_percent,
  ROUND(d.answeredtime / NULLIF(d.completed, 0), 1) AS acd_seconds,
  d.term_client,
  d.term_account_id
FROM (
  SELECT
    c.term_account_id,
    x.name AS terminator,
    l.name AS term_client,
    DATE(c.date_created) AS day,
    c.destination,
    c.currency,
    COUNT(*) AS calls,
    SUM(c.status IN ('answered', 'completed')) AS answered,
    SUM(c.status = 'failed') AS failed,
    SUM(c.status = 'completed') AS completed,
    COUNT(c.ourcost) AS known,
    ROUND(SUM(COALESCE(c.corrected_answeredtime, c.answeredtime, 0)), 3) AS answeredtime,
    SUM(COALESCE(c.price, 0) + COALESCE(c.corrected, 0)) AS price,
    SUM(COALESCE(c.ourcost, 0) + COALESCE(c.corrected_ourcost, 0)) AS ourcost
  FROM astcdr c
  JOIN astaccount x ON x.id = c.term_account_id
  JOIN astclient l ON l.id = x.client_id
  GROUP BY c.term_account_id, x.name, l.name, DATE(c.date_created), c.destination, c.currency
) d;

DROP VIEW IF EXISTS v_quota_usage;
CREATE VIEW v_quota_usage AS
SELECT
  client,
  month,
  currency,
  CASE WHEN quota IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, quota < 0),
      abs(quota) / 1000000, abs(quota) % 1000000) END AS quota,
  printf('%s%d.%06d', substr('-', 1, spent < 0),
      abs(spent) / 1000000, abs(spent) % 1000000) AS spent,
  printf('%s%d.%06d', substr('-', 1, reserved < 0),
      abs(reserved) / 1000000, abs(reserved) % 1000000) AS reserved,
  client_id,
  period,
  CASE WHEN month IS NULL THEN 'daily' ELSE 'monthly' END AS kind,
  CASE WHEN remaining IS NOT NULL THEN
    printf('%s%d.%06d', substr('-', 1, remaining < 0),
      abs(remaining) / 1000000, abs(remaining) % 1000000) END AS remaining,
  CASE quota WHEN 0 THEN 100 ELSE (spent - waived + reserved) * 100 / quota END AS percent,
  printf('%s%d.%06d', substr('-', 1, waived < 0),
      abs(waived) / 1000000, abs(waived) % 1000000) AS waived,
  first_over_at,
  last_over_at,
  blocked_at
FROM (
  SELECT
    l.name AS client,
    CASE WHEN length(q.period) = 7 THEN q.period END AS month,
    l.currency,
    q.quota,
    q.spent,
    q.reserved,
    q.client_id,
    q.period,
    MAX(0, q.quota - q.spent + q.waived - q.reserved) AS remaining,
    q.waived,
    q.first_over_at,
    q.last_over_at,
    q.blocked_at
  FROM astquota q
  JOIN astclient l ON l.id = q.client_id
  UNION ALL
  SELECT d.client, d.month, d.currency, NULL, d.spent, d.reserved, d.client_id, d.month, NULL, 0,
    NULL, NULL, NULL
  FROM (
    SELECT
      c.client_id,
      l.name AS client,
      l.currency,
      c.quota_month AS month,
      SUM(COALESCE(c.price, 0) + COALESCE(c.corrected, 0)) AS spent,
      SUM(CASE WHEN c.status IN ('open', 'answered') THEN c.reservedamount ELSE 0 END) AS reserved
    FROM astcdr c
    JOIN astclient l ON l.id = c.client_id
    GROUP BY c.client_id, l.name, l.currency, c.quota_month
  ) d
  WHERE NOT EXISTS (
    SELECT 1 FROM astquota q WHERE q.client_id = d.client_id AND q.period = d.month
  )
);
