"""`python -m scheduler` is the command `scheduler`."""

from scheduler.cli.process import main

if __name__ == "__main__":
    main()
