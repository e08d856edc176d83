"""Where the command line was before `relo.commands`: launch scripts that say `-m relo.cli` keep working."""

from relo.__main__ import main

if __name__ == "__main__":
    main()
