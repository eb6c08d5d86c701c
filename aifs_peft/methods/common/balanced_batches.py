"""Methods that are nothing but balanced batches."""

from __future__ import annotations

from aifs_peft.errors import InvalidConfigError
from aifs_peft.methods.settings import MethodSettings


def require_balancing(settings: MethodSettings, method: str) -> None:
    """Refuse settings that leave nothing of a method whose only ingredient is how batches are drawn.

    Args:
        settings: the method's.
        method: its name, for the message.

    Raises:
        InvalidConfigError: with `balance_groups=False`, or where no example may be drawn twice.

    Example:
        >>> require_balancing(MethodSettings.for_method("erm-balanced"), "erm-balanced")
    """
    if not settings.balance_groups:
        raise InvalidConfigError(
            f"method {method!r} is nothing but balanced batches; leave balance_groups=True, or use method 'erm'"
        )
    if settings.max_repeats <= 1:
        raise InvalidConfigError(
            f"method {method!r} is nothing but balanced batches, and max_repeats={settings.max_repeats:g} lets no "
            "example be drawn more often than the rest; raise it, or use method 'erm'"
        )
