"""Fixtures of the tests that need a cluster; they are made in `support`."""

from support.galera import galera, galera_name

__all__ = ["galera", "galera_name"]
