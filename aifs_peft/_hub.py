"""Calls of the Hub that end: a server that takes a connection and never answers is waited for a while, not for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_HINTS = {
    401: " Log in with `hf auth login`, or set HF_TOKEN to a token with write access.",
    403: " The token may not write there: make one with write access, or choose a repository of your own.",
    404: " There is no such owner, or the token may not see it.",
}
# Without one byte from the Hub, or to it. Some calls are tried again five times.
_SECONDS = 60.0


@contextmanager
def expecting_answers() -> Iterator[None]:
    """A block in which calls of the Hub wait a minute at most for an answer; `huggingface_hub` alone waits for ever.

    Calls that have a limit of their own keep it.

    Raises:
        TimeoutError: if no answer came.

    Example:
        >>> with expecting_answers():
        ...     answer = "what the Hub says"
    """
    from huggingface_hub import get_session

    client = get_session()
    client.event_hooks = _with_requests(client, [*client.event_hooks["request"], _limit])
    try:
        yield
    except Exception as error:
        # By name: which library talks to the Hub differs between releases of huggingface_hub.
        if isinstance(error, OSError) or not any(kind.__name__ == "TimeoutException" for kind in type(error).__mro__):
            raise
        raise TimeoutError(f"the Hub took the call and did not answer ({type(error).__name__}); try again") from error
    finally:
        left = list(client.event_hooks["request"])
        left.remove(_limit)
        client.event_hooks = _with_requests(client, left)


def _with_requests(client: Any, hooks: list[Callable[[Any], None]]) -> dict[str, list[Any]]:
    return {**client.event_hooks, "request": hooks}


def _limit(request: Any) -> None:
    """Where a request waits without end (for a connection, for reading, for writing), give it one."""
    limits = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {
        name: _SECONDS if limits.get(name) is None else limits[name] for name in ("connect", "read", "write", "pool")
    }


def answered(call: Callable[[], Any]) -> Any:
    """The result of a call, made within `expecting_answers`; for one that runs in another thread.

    Args:
        call: takes nothing.
    """
    with expecting_answers():
        return call()


def reason_of(error: Exception) -> str:
    """What kind of error it is, and its first line.

    Args:
        error: of a call of the Hub.

    Example:
        >>> reason_of(ConnectionError("nobody listens"))
        'ConnectionError: nobody listens'
    """
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0]}"


def refusal(error: Exception) -> str:
    """Why a push failed, in brackets, and what to do about it where that is known: one line.

    Args:
        error: of the push.

    Example:
        >>> refusal(ConnectionError("nobody listens"))
        '(ConnectionError: nobody listens).'
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    hint = _HINTS.get(status, "") if isinstance(status, int) else ""
    return f"({reason_of(error)}).{hint}"
