"""`python -m astcredit` is the command `astcredit`."""

from astcredit.cli.main import main

main()
