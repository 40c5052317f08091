"""`python -m mem1`, like `mem1`."""

from mem1.cli import main

main()
