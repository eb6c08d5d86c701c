"""Upstream's own deprecations, which no caller can avoid."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        # PEFT 0.21 reads `is_gradient_checkpointing`, which transformers 5.23 renames.
        item.add_marker(pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"))
