"""`python -m edgeai` is the `edgeai` command."""

from edgeai.cli.main import main

main()
