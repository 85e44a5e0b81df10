"""`python -m roofcast` is the command `roofcast`."""

from roofcast.reports.command import main

if __name__ == "__main__":
    main()
