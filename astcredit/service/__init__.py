"""Use cases over ports: authorize, settle, administer, report. Knows no driver and no socket."""
