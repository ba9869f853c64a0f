"""The way to Asterisk: FastAGI, classic AGI, AMI. panoramisk and pyst2 are known only here."""
