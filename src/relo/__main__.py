"""The script `relo`, and `python -m relo` where it is not on the path."""

import signal
import sys

from relo.processes import STOPPED, exit_on_interrupt


def main() -> None:
    """Run the command line; Ctrl-C ends the program cleanly, even during imports and when pressed repeatedly."""
    exit_on_interrupt()
    try:
        from relo.commands.main import main as run_commands

        run_commands()
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != STOPPED:
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what follows is the way out
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
