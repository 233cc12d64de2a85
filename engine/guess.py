"""What a mistyped word was probably meant to be."""

import difflib


def guess(word, known):
    """"; did you mean NAME?" for the known word most like this one, "" where none is."""
    lower = {str(name).lower(): str(name) for name in known}
    close = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else ""
