"""The script `relo`, and `python -m relo` where it is not on the path."""

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C is taken well from the first import on."""
    try:
        from relo.commands.main import main as run_commands
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    run_commands()


if __name__ == "__main__":
    main()
