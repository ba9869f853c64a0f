"""Real-time prepaid credit control for Asterisk."""

__version__ = "0.1.0"
