"""`python -m avistan` is the command `avistan`."""

from avistan.cli.app import main

main()
