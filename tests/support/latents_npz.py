"""Generated files in the layout of `dominoes_latents`."""

from pathlib import Path

import numpy as np


def write_latents(folder: Path, width: int = 12, n: int = 400) -> None:
    """`train.npz` and `test.npz`: the class moves column 1 a little, the attribute column 0 a lot."""
    rng = np.random.default_rng(0)
    for split, rows in (("train", n), ("test", n // 2)):
        y = np.arange(rows, dtype=np.uint8) % 2
        z = rng.normal(3, 1, (rows, 2, width))
        z[:, :, 1] += 1.5 * y[:, None]
        z[:, 1, 0] += 4
        np.savez(folder / f"{split}.npz", z=z.astype(np.float16), y=y)
