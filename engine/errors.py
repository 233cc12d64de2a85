"""Errors that a user can fix, and the exit codes of every command."""

FINISHED = 0
DEFECT = 1  # ours: keeps its traceback
USER_ERROR = 2  # one clear line on stderr
STOPPED = 75  # saved; run the same command again (EX_TEMPFAIL)


class UserError(ValueError):
    """A mistake in the input, described in one line.

    Args:
        message: what is wrong, where, and what was expected.
        code: a short word for programs (`status.json`).
        file: the file that is wrong, if there is one.
        field: the setting or json key that is wrong, if there is one.
        hint: what the user can do about it, or None.
        details: lines to print before the message, such as the traceback of a user's own code.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "bad_input",
        file: str | None = None,
        field: str | None = None,
        hint: str | None = None,
        details: str = "",
    ) -> None:
        super().__init__(message)
        self.code, self.file, self.field, self.hint = code, file, field, hint
        self.details = details

    def as_dict(self) -> dict[str, str | None]:
        """Return the `error` object of `status.json`."""
        return {
            "code": self.code,
            "file": self.file,
            "field": self.field,
            "hint": self.hint,
            "message": str(self),
        }


class RunAgain(UserError):
    """The run cannot go on in these processes, though its folder can; not a mistake of the user.

    Nothing is saved. The exit code is STOPPED: run the same command again.
    """


class LostProcess(RunAgain):
    """Another process of the run is gone or does not respond."""
