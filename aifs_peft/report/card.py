"""The model card of a trained adapter, rendered from its result summary and nothing else."""

from __future__ import annotations

import html
import math
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from aifs_peft.models.tabular import ENCODERS

BASE_FOLDER = "base_model"
"""Where a run keeps a base model that exists nowhere else."""
_TEMPLATE = """\
---
{{ card_data }}
---

# AIFS adapter for {{ base_model }} on {{ dataset }}

Method `{{ method }}` ([aifs_peft](https://pypi.org/project/aifs_peft/)): a PEFT adapter with its own
classification head, trained so that the head does not lean on a spurious attribute.

## How to use

```python
import aifs_peft  # registers AIFS with PEFT; without it PEFT raises KeyError: 'AIFS'
from peft import PeftModel
from aifs_peft.models import load_model

base = load_model({{ base_arguments }}, modality={{ modality_literal }}, label_names={{ label_names }})
model = PeftModel.from_pretrained(base, {{ repo_literal }}).eval()
```

## Results on the test split

{{ group_table }}

Average accuracy {{ average }}; worst-group accuracy {{ worst }}.

## What was used

- Group labels in training: no. In model selection: no (rule: {{ selection }}). In this table: yes, for evaluation only.
- {{ state }}
- Seed {{ seed }}; {{ seconds }} s of training; versions: {{ versions }}.
- Examples per group: {{ counts }}.

## Limits

Groups other than those in the table were not measured. A group with few examples has a wide interval.
"""


def _escape(text: Any) -> str:
    """Text from data (group or class names) can carry neither markup nor table separators into the card."""
    return html.escape(str(text), quote=False).replace("|", "&#124;").replace("\n", " ")


def group_table(metrics: dict[str, Any]) -> str:
    """A Markdown table of the groups: name, `n`, accuracy, exact interval."""
    lines = ["| group | n | accuracy | interval |", "|---|---:|---:|---:|"]
    for name, entry in metrics["groups"].items():
        interval = entry.get("accuracy_interval") or (math.nan, math.nan)
        lines.append(
            f"| {_escape(name)} | {entry['n']} | {_percent(entry['accuracy'])} "
            f"| {_percent(interval[0])} to {_percent(interval[1])} |"
        )
    return "\n".join(lines)


def render_card(summary: dict[str, Any]) -> ModelCard:
    """The card of one run, with the group table and what supervision was used.

    Args:
        summary: the `summary` of `aifs_peft.experiments.run_finetune`; its `repo_id` names the Hub repository.
    """
    metrics = summary["metrics"]
    average, worst = (_value(metrics[name]) for name in ("average_accuracy", "worst_group_accuracy"))
    repo = summary.get("repo_id", "path/to/this/folder")
    data = ModelCardData(
        base_model=None if summary["model"] in ("tiny_clip", *ENCODERS) else summary["model"],
        library_name="peft",
        tags=["aifs", "spurious-correlations", "worst-group-accuracy"],
        model_name=f"AIFS {summary['dataset']}",
        eval_results=[
            EvalResult(
                task_type=summary["task"],
                dataset_type=summary["dataset"],
                dataset_name=summary["dataset"],
                metric_type=name,
                metric_value=round(value, 4),
            )
            for name, value in (("accuracy", average), ("worst_group_accuracy", worst))
        ],
    )
    return ModelCard.from_template(
        data,
        template_str=_TEMPLATE,
        base_model=summary["model"],
        base_arguments=_base_arguments(summary["model"], repo),
        modality_literal=repr(summary.get("modality", summary["task"].split("-")[0])),
        label_names=repr(summary["label_names"]),
        repo_literal=repr(repo),
        dataset=summary["dataset"],
        method=summary["method"],
        group_table=group_table(metrics),
        average=_percent(average),
        worst=_percent(worst),
        selection=summary["selection"]["rule"],
        state=_escape(summary["state"]),
        seed=summary["seed"],
        seconds=f"{summary['seconds']:.0f}",
        versions=", ".join(f"{name} {version}" for name, version in summary["provenance"]["versions"].items()),
        counts=_escape(summary["groups"]),
    )


def _base_arguments(model: str, repo: str) -> str:
    """What `load_model` needs to find the base model: its name, or the folder saved beside the adapter."""
    return f"{repo!r}, subfolder={BASE_FOLDER!r}" if model in ENCODERS else repr(model)


def _value(metric: Any) -> float:
    return float(metric["value"] if isinstance(metric, dict) else metric)


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f} %"
