"""`python -m introspect`."""

from introspect.cli import main

main()
