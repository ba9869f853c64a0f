DROP VIEW IF EXISTS v_client_balance;
CREATE VIEW v_client_balance AS SELECT name, balance, reserved FROM astclient;
