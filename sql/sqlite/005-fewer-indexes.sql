-- Indexes that cost more than they bring, for SQLite 3.33+.
--
-- Open calls are some thousand rows that come and go with every call. What looked for them by
-- client or by their last possible second (an audit, a sweep twice a minute) reads them all in
-- milliseconds; each call had to keep the indexes.

DROP INDEX ix_astcreditres_client;
DROP INDEX ix_astcreditres_expires;
