"""`python -m avistan` is the command `avistan`."""

from .cli import main

main()
