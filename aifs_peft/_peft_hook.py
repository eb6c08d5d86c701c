"""Make PEFT know AIFS whichever of the two is imported first, and import PEFT for no one who does not ask for it.

Where PEFT has been imported, registering is an import of `aifs_peft.tuner`. Where it has not, a finder waits at the
front of `sys.meta_path` for the first import of `peft`, lets it happen, registers, and takes itself away.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType

NOT_IMPORTABLE = (
    "AIFS is not registered with PEFT, which cannot be imported ({error}); `aifs doctor` says what is wrong"
)
NOT_REGISTERED = (
    "AIFS could not be registered with the installed PEFT ({error}); `aifs doctor` says which versions fit together"
)
# bitsandbytes tells at import that a package it could use is missing. PEFT imports it, quantised model or not.
_NOTICE_LOGGER = "bitsandbytes.backends.cpu.ops"
_NOTICE = "Failed to load CPU gemm_4bit_forward from kernels-community"


class _PeftFinder:
    """Finds `peft` as all other finders do, and has `register` called once it is loaded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "peft":
            return None
        spec = None
        for finder in list(sys.meta_path):
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    break
        if spec is not None and spec.loader is not None:
            # The spec may only be looked at (`importlib.util.find_spec`): nothing else is changed before it is loaded.
            self._after_loading(spec)
        return spec

    def _after_loading(self, spec: ModuleSpec) -> None:
        loader = spec.loader
        assert loader is not None  # noqa: S101 - the caller looked
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            try:
                with _without_kernels_notice():
                    load(module)
            except BaseException as error:
                if isinstance(error, ImportError | RuntimeError):
                    warnings.warn(NOT_IMPORTABLE.format(error=error), RuntimeWarning, stacklevel=2)
                raise
            self.remove()
            register()

        loader.exec_module = exec_module  # type: ignore[method-assign]

    def remove(self) -> None:
        """Take this finder out of `sys.meta_path`; once is enough."""
        with self._lock:
            if self in sys.meta_path:
                sys.meta_path.remove(self)


def install() -> None:
    """Register now where PEFT has been imported, else when it is."""
    if sys.modules.get("peft") is not None:
        register()
    elif not any(isinstance(finder, _PeftFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PeftFinder())


def register() -> None:
    """Import `aifs_peft.tuner`, which enters AIFS into PEFT's tables.

    Another thread may be importing that folder and wait for PEFT, which this thread holds: Python then hands out the
    half-made module here, and the other thread registers as soon as it goes on.
    """
    try:
        __import__("aifs_peft.tuner")
    except Exception as error:  # noqa: BLE001 - a method that does not fit must not break the import of its host
        warnings.warn(NOT_REGISTERED.format(error=error), RuntimeWarning, stacklevel=2)


@contextmanager
def _without_kernels_notice() -> Iterator[None]:
    """Leave out the one record that says that `kernels` is not installed; all others pass."""

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_NOTICE)

    logger = logging.getLogger(_NOTICE_LOGGER)
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
