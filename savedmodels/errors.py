"""The errors a user can mend. Everything else is a bug and keeps its traceback."""


class Face2VoiceError(ValueError):
    """Base of every error whose message is written for the user.

    The message is one line that names the file or value at fault and says what to do;
    the command line prints it on stderr and exits with status 2.
    """


class InputError(Face2VoiceError):
    """A photo, text, clip or option that cannot be used."""


class CheckpointError(Face2VoiceError):
    """A weights file or bundle that is missing, damaged or of another network."""
