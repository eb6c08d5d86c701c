"""`python -m aifs_peft.cli` is the same as `aifs`."""

from aifs_peft.cli import main

raise SystemExit(main())
