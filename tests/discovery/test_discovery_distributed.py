"""Two processes, each with a part of the latents, find what one finds."""

from pathlib import Path

import pytest
import torch
from processes import free_port, launch

SCRIPT = Path(__file__).with_name("distributed_latents.py")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    alone = launch(SCRIPT, [str(SCRIPT), str(tmp_path / "one"), "1"], tmp_path / "one")
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    both = launch(SCRIPT, [*launcher, str(SCRIPT), str(tmp_path / "two"), "2"], tmp_path / "two")
    assert both.keys() == alone.keys()
    for key, value in alone.items():
        torch.testing.assert_close(both[key], value, atol=1e-6, rtol=1e-6, msg=lambda m, k=key: f"{k}: {m}")
