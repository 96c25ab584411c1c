"""``python -m rbml.cli``: the command line without its script."""

from rbml.cli import main

main()
