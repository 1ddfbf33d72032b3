"""Every error edgeai raises on purpose, in one tree.

    EdgeaiError
    ├── InvalidInput            400  a value the caller can correct
    │   └── ContextLengthExceeded    the prompt does not fit the model's context
    ├── Unauthorized            401  no API key, or one that is not known
    ├── Forbidden               403  a request that this client or web page may not make
    ├── NotFound                404  no such model, package or recipe
    ├── LicenceNotAccepted      403  weights under terms that the user has to accept first
    ├── SourceError             422  what cannot be fetched, or weights that cannot be read as they are
    │   └── UnsupportedModel         readable, but of a kind edgeai does not know
    ├── BundleError             422  a bundle that is damaged, cut off or not what it has to be
    │   └── Untrusted                nobody who is trusted has signed it
    ├── UpdateRefused           409  a system that this board may not be given
    ├── PackageError            500  a model package that is damaged or does not match its manifest
    ├── StateDamaged            500  a file of the server's own that cannot be read as it is
    ├── TrialFailed             500  settings with which a child process died, hung or could not load the model
    ├── ProgramFailed           500  a program of an image's build that ended with an error
    ├── ValidationFailed        500  a build that does not reproduce its source
    ├── Overloaded              503  try again after `retry_after` seconds
    │   └── TooManyRequests     429  of one client; others are served
    │       └── LimitReached         as much as it may ask for in a minute or a day
    ├── DeadlineExceeded        504  no answer in the time that the request allows
    ├── OutOfMemory             507  the request or model does not fit the memory budget
    └── OutOfDisk               507  no room to write

An error says what is wrong and where (`message`) and what to do about it (`hint`).
"""

from __future__ import annotations


class EdgeaiError(Exception):
    """Base of all deliberate errors: what is wrong, what to do, and the HTTP status that says so."""

    status = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(EdgeaiError):
    """A value the caller can correct; `param` names it as the API does, when there is a name."""

    status = 400

    def __init__(self, message: str, hint: str = "", *, param: str | None = None) -> None:
        super().__init__(message, hint)
        self.param = param


class ContextLengthExceeded(InvalidInput):
    """The prompt (and the tokens asked for) do not fit the model's context."""


class Unauthorized(EdgeaiError):
    """The request has no API key, or one that is not known (any more)."""

    status = 401


class Forbidden(EdgeaiError):
    """A request that this client, or the web page that sends it, may not make."""

    status = 403


class NotFound(EdgeaiError):
    """No such model, package or recipe; `param` names what else it is that a request asked for."""

    status = 404

    def __init__(self, message: str, hint: str = "", *, param: str = "model") -> None:
        super().__init__(message, hint)
        self.param = param


class LicenceNotAccepted(EdgeaiError):
    """Weights under terms that are not open, and that the user did not accept."""

    status = 403


class SourceError(EdgeaiError):
    """What cannot be fetched; weights that cannot be read: cut off, of a wrong digest, or with missing metadata."""

    status = 422


class UnsupportedModel(SourceError):
    """Readable weights of an architecture, tensor type or tokenizer that edgeai does not know."""


class BundleError(EdgeaiError):
    """A bundle that is damaged, cut off, or not what it has to be. Nothing of it was used."""

    status = 422


class Untrusted(BundleError):
    """A bundle that nobody has signed whose key is trusted here."""


class UpdateRefused(EdgeaiError):
    """A system that is older than the running one, or for another board."""

    status = 409


class PackageError(EdgeaiError):
    """A model package that is damaged or does not match its manifest."""


class StateDamaged(EdgeaiError):
    """A file of the server's own that cannot be read as it is."""


class TrialFailed(EdgeaiError):
    """Settings with which a child process died, hung, or could not load the model. The message is what was seen."""


class ProgramFailed(EdgeaiError):
    """A program that an image is built with ended with an error. The message has its last words."""


class ValidationFailed(EdgeaiError):
    """A build whose graph does not reproduce its source, or misses the recipe's quality threshold."""


class Overloaded(EdgeaiError):
    """No room for the request now; worth trying again after `retry_after` seconds."""

    status = 503

    def __init__(self, message: str, hint: str = "", *, retry_after: int = 1) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class TooManyRequests(Overloaded):
    """One client has too many requests that wait."""

    status = 429


class LimitReached(TooManyRequests):
    """As much as one client may ask for. `lasting`: it should not wait for more by itself."""

    def __init__(self, message: str, hint: str = "", *, retry_after: int, lasting: bool = False) -> None:
        super().__init__(message, hint, retry_after=retry_after)
        self.lasting = lasting


class DeadlineExceeded(EdgeaiError):
    """The answer cannot begin by the request's own deadline."""

    status = 504


class OutOfMemory(EdgeaiError):
    """The model, context or request does not fit the memory budget."""

    status = 507


class OutOfDisk(EdgeaiError):
    """The device has no room for what was to be written."""

    status = 507
