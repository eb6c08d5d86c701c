"""For tests that run commands in their own process."""

import logging
from collections.abc import Iterator

import datasets
import pytest
from transformers.utils import logging as transformers_logging


@pytest.fixture(autouse=True)
def libraries_speak_again() -> Iterator[None]:
    """A command silences transformers and datasets for its process, which here is that of all tests."""
    level = transformers_logging.get_verbosity()
    yield
    transformers_logging.set_verbosity(level)
    transformers_logging.enable_progress_bar()
    datasets.enable_progress_bars()
    logging.getLogger("bitsandbytes").setLevel(logging.NOTSET)
