"""Every method on two processes does what it does on one, batch-coupled terms included."""

from pathlib import Path

import pytest
import torch
from processes import free_port, launch

SCRIPT = Path(__file__).with_name("distributed_methods.py")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    alone = launch(SCRIPT, [str(SCRIPT), str(tmp_path / "one"), "1"], tmp_path / "one", timeout=500)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    both = launch(SCRIPT, [*launcher, str(SCRIPT), str(tmp_path / "two"), "2"], tmp_path / "two", timeout=500)
    assert both.keys() == alone.keys()
    apart = {
        key: float((both[key] - value).abs().max())
        for key, value in alone.items()
        if not torch.allclose(both[key], value, atol=1e-4, rtol=1e-3)
    }
    assert not apart, apart
