"""``python -m rbml``: the command line without its script, which ``torchrun -m rbml`` needs."""

from __future__ import annotations

from rbml.cli import main

if __name__ == "__main__":
    main()
