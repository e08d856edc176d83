"""The one exception for mistakes that the person at the keyboard can correct."""

import re

EXCERPT = 80
"""Of what was found in a file or setting, so many characters are quoted in an error."""

_LONGEST_SENTENCE = 900  # more is a name or value that an error quotes in full


_LONGEST_HALF = 250  # of a parser's message: its beginning names the setting, its end what was found


class UserError(Exception):
    """A wrong path, box, file or setting.

    The message is one clear sentence that names the culprit and says what to do. The command line prints it alone,
    without a traceback, and exits with code 2. Programming errors use the built-in exceptions.
    """

    def __str__(self) -> str:
        """The sentence, in one line."""
        # Data loader workers hand over the whole traceback as the message; its end is the sentence.
        sentence = super().__str__().rpartition(f"{__name__}.UserError: ")[2].strip()
        if len(sentence) > _LONGEST_SENTENCE:
            sentence = f"{sentence[: _LONGEST_SENTENCE // 2]} ... {sentence[-_LONGEST_SENTENCE // 2 :]}"
        return printable(sentence)


def excerpt(found: object) -> str:
    """What was found, quoted in an error: its first 80 characters, as Python writes it."""
    if isinstance(found, int) and found.bit_length() > 4 * EXCERPT:  # Python does not write out every number
        return f"a number of over {EXCERPT} digits"
    text = found if isinstance(found, str) else repr(found)
    shortened = text[:EXCERPT] + ("..." if len(text) > EXCERPT else "")
    return repr(shortened) if isinstance(found, str) else shortened


def printable(text: str) -> str:
    """A text with line ends, and bytes of file names that are no text, as escapes."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


# How a parser speaks of settings and types, and how we do.
_WORDS = {
    r'Parser key "([^"]*)":': r"Setting '\1':",
    r"(Given|Got) value:$": r"\1 value: ''",
    # One type, or nothing. Of classes, the parser's list of errors says more.
    r"Does not validate against any of the Union subtypes Subtypes: [\[(]"
    r"(<class '(?:int|float|bool|str)'>|typing\.Literal\[[^]]*\]), <class 'NoneType'>[\])] "
    r"Errors: .*Given value: (.*)": r"Expected a \1. Got value: \2",
    r"Expected a <class 'int'>\. Got value: (.*)": r"\1 is not a whole number",
    r"Expected a <class 'float'>\. Got value: (.*)": r"\1 is not a number",
    r"Expected a <class 'bool'>\. Got value: (.*)": r"\1 is neither true nor false",
    r"Expected a <class '(\w+)'>\. Got value: (.*)": r"\2 is not of type \1",
    r"Expected a typing\.Literal\[([^]]*)\]\. Got value: (.*)": r"\2 is none of \1",
    r"Subcommand '(\w+)' does not accept option '([^']*)'": r"There is no setting '\2' in the configs of `relo \1`",
    r"Option '([^']*)' is not accepted": r"There is no setting '\1'",
}


def one_sentence(message: str) -> str:
    """A parser's message of several lines as one, in the words of the command line."""
    message = " ".join(message.split())
    for pattern, words in _WORDS.items():
        message = re.sub(pattern, words, message)
    if len(message) > 2 * _LONGEST_HALF:  # of classes, each that was tried with all that was given
        message = f"{message[:_LONGEST_HALF]} ... {message[-_LONGEST_HALF:]}"
    return message
