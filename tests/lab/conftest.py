"""Fixtures of the tests that need a real Asterisk; `support.lab_fixtures` has them."""

from support.lab_fixtures import lab, lab_tree

__all__ = ["lab", "lab_tree"]
