"""Puts the parts together; owns start and stop of everything that lives in the server."""
