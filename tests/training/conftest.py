"""Upstream deprecations that no caller can avoid, and a garbage collector that looks at a test's own objects only."""

import gc

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        # PEFT 0.21 reads `is_gradient_checkpointing`, which transformers 5.23 renames.
        item.add_marker(pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"))


@pytest.fixture(scope="session", autouse=True)
def frozen_imports():
    """`Trainer.train` collects garbage, which takes half a second among the million objects of imported packages."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
