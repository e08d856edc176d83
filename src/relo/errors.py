"""The one exception for mistakes that the person at the keyboard can mend."""


class UserError(Exception):
    """A wrong path, box, file or setting.

    The message is one clear sentence that names the culprit and says what to do. The command line prints it alone,
    without a traceback, and exits with code 2. Programming errors use the built-in exceptions.
    """

    def __str__(self) -> str:
        """The sentence, in one line."""
        # Data loader workers hand over the whole traceback as the message; its end is the sentence.
        sentence = super().__str__().rpartition(f"{__name__}.UserError: ")[2].strip()
        return printable(sentence)


def printable(text: str) -> str:
    """A text with line ends, and bytes of file names that are no text, as escapes."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
