-- A role that may read the books and change nothing, for MariaDB 10.6+ and MySQL 8.
--
-- Run it once, after `astcredit init`, with the database's own client and as a user who may
-- create roles (the database is named, so that the rights are for it alone):
--
--   mariadb -u root -p astcredit < grants-accountant.sql
--
-- Then make a user for each person and give it the role:
--
--   CREATE USER 'anna'@'%' IDENTIFIED BY 'a long password';
--   GRANT astcredit_accountant TO 'anna'@'%';
--   SET DEFAULT ROLE astcredit_accountant FOR 'anna'@'%';   (MySQL: … TO 'anna'@'%')
--
-- It may be run again; rights stay when an upgrade makes the views anew. A view reads with the
-- rights of who made it, so the role sees of the other tables only what a view shows: of the
-- resellers and accounts their names, capacities and calls, of the routing rules too, of the
-- blocked prefixes nothing, of the rates what stands in the CDRs.

CREATE ROLE IF NOT EXISTS astcredit_accountant;

GRANT SELECT ON astclient TO astcredit_accountant;
GRANT SELECT ON astcreditres TO astcredit_accountant;
GRANT SELECT ON astcdr TO astcredit_accountant;
GRANT SELECT ON astledger TO astcredit_accountant;

GRANT SELECT ON v_active_calls TO astcredit_accountant;
GRANT SELECT ON v_client_balance TO astcredit_accountant;
GRANT SELECT ON v_capacity TO astcredit_accountant;
GRANT SELECT ON v_cdr TO astcredit_accountant;
GRANT SELECT ON v_ledger TO astcredit_accountant;
GRANT SELECT ON v_daily_client TO astcredit_accountant;
GRANT SELECT ON v_daily_destination TO astcredit_accountant;
GRANT SELECT ON v_margin TO astcredit_accountant;
GRANT SELECT ON v_terminator TO astcredit_accountant;
GRANT SELECT ON v_quota_usage TO astcredit_accountant;
