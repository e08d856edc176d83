"""The one exception for mistakes that the person at the keyboard can mend."""


class UserError(Exception):
    """A wrong path, box, file or setting.

    The message is one clear sentence that names the culprit and says what to do. The command line prints it alone,
    without a traceback, and exits with code 2. Programming errors use the built-in exceptions.
    """
