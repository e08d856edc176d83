"""`python -m relo`: the command line, where no script `relo` is on the path."""

from relo.commands.main import main

if __name__ == "__main__":
    main()
