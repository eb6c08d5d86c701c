"""What the configurations of `full_size/` would take: a dry run of each, `python benchmarks/full_size_forecasts.py`.

One configuration after the other, as `scripts/dry_run.py` does it: the architecture with random weights, two steps at
two batch sizes, a straight line to the whole batch. What the file holds is not computed again (`--fresh` does); it is
written after each. The table in `docs/benchmark.md` is filled in by `benchmarks/render_benchmark.py`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from aifs_peft.bench.full_size import dry_run
from aifs_peft.cli.options import parse
from aifs_peft.cli.screen import quiet_libraries
from aifs_peft.experiments import provenance

HERE = Path(__file__).parent
CONFIGS, RESULT = HERE / "full_size", HERE / "results" / "performance" / "full_size.json"


def row_of(config: Path) -> dict[str, Any]:
    """The forecast of a configuration.

    Args:
        config: its file.
    """
    spec, args, _ = parse(["--config", str(config)])
    forecast = dry_run(spec, args, check_data=False)
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return {
        "model": spec.model,
        "dataset": Path(spec.dataset).stem,
        "parameters": forecast.parameters,
        "trained": forecast.trained,
        "batch": batch,
        "per_device_batch": forecast.batch,
        "examples": forecast.examples,
        "seconds_per_step": round(forecast.seconds_per_example * batch, 1),
        "cpu_seconds_per_step": round(forecast.cpu_seconds_per_example * batch, 1),
        "peak_bytes": round(forecast.peak_bytes),
        "fixed_bytes": round(forecast.fixed_bytes),
        "bytes_per_example": round(forecast.bytes_per_example),
        "device": forecast.device,
        "threads": torch.get_num_threads(),
        "load": [round(value, 1) for value in os.getloadavg()],
    }


def main() -> None:
    """Forecast what the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="names of configurations")
    parser.add_argument("--fresh", action="store_true", help="forecast again what the file holds")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    quiet_libraries()
    record: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": {}}
    for config in sorted(CONFIGS.glob("*.yaml")):
        name = config.stem
        if (options.only and name not in options.only) or (name in record["rows"] and not options.fresh):
            continue
        record["rows"][name] = row_of(config)
        record["rows"] = dict(sorted(record["rows"].items()))
        record["provenance"] = provenance()
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(name, record["rows"][name], flush=True)


if __name__ == "__main__":
    main()
