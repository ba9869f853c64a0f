"""Fixtures of the tests that need a real Asterisk; they are made in `support`."""

from support.lab_fixtures import carrier, lab, lab_tree, stub
from support.lab_scene import controller, scene

__all__ = ["carrier", "controller", "lab", "lab_tree", "scene", "stub"]
