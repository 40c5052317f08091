"""`python -m mem1.cli`, like `mem1`."""

from mem1.cli import main

main()
