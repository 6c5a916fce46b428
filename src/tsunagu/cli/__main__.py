"""`python -m tsunagu.cli`: the command line without the fast launcher."""

from tsunagu.cli.main import main

main()
