"""Images per second and core of the SpuriousScenes renderer, and of writing them as PNG.

    OMP_NUM_THREADS=1 python benchmarks/render_speed.py [--images 4096] [--size 64] [--repeats 5] [--out FILE]

Pure rendering counts against the target (2,000 images per second and core at 64 px). Wall-clock and processor
seconds are both kept: on a machine that does other work the latter say what one core needs.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

from aifs_peft.data.spurious_scenes import WORLDS, SceneConfig, render
from aifs_peft.data.tables import encode_png

TARGET = 2000.0


def timed(work) -> tuple[float, float]:
    """Wall-clock and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(world: str, images: int, size: int, repeats: int) -> dict[str, object]:
    """Rates of one world; the median of the repeats decides."""
    seeds = np.arange(images, dtype=np.int64)
    visible = np.stack([(seeds // 2) % 2, (seeds // 4) % 2], axis=1)
    config = SceneConfig(world, size, 1.0, 1.0)
    drawn = render(config, seeds % 2, visible, seeds)
    draw = [timed(lambda: render(config, seeds % 2, visible, seeds)) for _ in range(repeats)]
    write = [timed(lambda: encode_png(drawn)) for _ in range(repeats)]
    rate = images / float(np.median([cpu for _, cpu in draw]))
    return {
        "images_per_core_second": round(rate, 1),
        "images_per_wall_second": round(images / float(np.median([wall for wall, _ in draw])), 1),
        "png_per_core_second": round(images / float(np.median([cpu for _, cpu in write])), 1),
        "render_wall_and_cpu_seconds": [[round(s, 4) for s in pair] for pair in draw],
        "target": TARGET,
        "reached": rate >= TARGET,
    }


def main() -> None:
    """Measure all worlds and write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = {
        "what": "SpuriousScenes renderer, single process, single thread",
        "images": args.images,
        "size": args.size,
        "worlds": {world: measure(world, args.images, args.size, args.repeats) for world in WORLDS},
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg(), "machine": platform.machine()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
