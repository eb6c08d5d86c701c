"""Narrow warning filters of this folder, and its tiny models."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    # PEFT 0.21 asks transformers 5.23 for a property that was renamed; nothing in this package calls it.
    mark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(mark)
