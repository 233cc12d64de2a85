"""Errors that are the user's to mend, and the exit codes of every command."""

FINISHED = 0
DEFECT = 1  # ours: keeps its traceback
USER_ERROR = 2  # one clear line on stderr
STOPPED = 75  # saved; run me again (EX_TEMPFAIL)


class UserError(ValueError):
    """A mistake in the input, told in one line: the file or flag, the field, what was expected.

    code: a short word for programs (`status.json`); file, field, hint: where and what to do, when
    known.
    """

    def __init__(self, message, *, code="bad_input", file=None, field=None, hint=None):
        super().__init__(message)
        self.code, self.file, self.field, self.hint = code, file, field, hint

    def as_dict(self):
        """The `error` object of `status.json`."""
        return {
            "code": self.code,
            "file": self.file,
            "field": self.field,
            "hint": self.hint,
            "message": str(self),
        }


class LostProcess(UserError):
    """Another process of the run is gone or does not answer: nobody's mistake. The exit code is STOPPED: run me again."""
