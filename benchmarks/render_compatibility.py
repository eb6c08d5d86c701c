"""Write `docs/compatibility.md`: what of PEFT, transformers and scikit-learn works, and what is refused.

    python benchmarks/render_compatibility.py [--check]

Made of the tables that the tests run, so that no row can say what no test shows.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "training")]

import peft_features  # noqa: E402 - the path is set above
import sklearn_contract  # noqa: E402
import sklearn_features  # noqa: E402
import test_training_compatibility as trainer  # noqa: E402
import test_training_search as search  # noqa: E402
import training_modes  # noqa: E402

from aifs_peft.training import AIFSTrainingArguments  # noqa: E402

PAGE = ROOT / "docs" / "compatibility.md"
HEAD = """# Compatibility

What users of PEFT, transformers and scikit-learn take for granted: one row per feature (arguments of `Trainer` with the
same outcome share one). It works, or it is refused with an error that begins with the words quoted. Rendered by
`benchmarks/render_compatibility.py` from the tables that the tests run, with PEFT {peft}, transformers {transformers}
and scikit-learn {sklearn}. Architectures have [a page of their own](architectures.md).
"""
LONGEST = 100
SEARCH = """
`pip install 'aifs_peft[search]'`. A trial is judged by the metric that also chooses the best model of a training, which
needs no group labels: by default the accuracy of the worst group that was inferred, or of the worst class where nothing
was found.

```python
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoImageProcessor, AutoModelForImageClassification

from aifs_peft import AIFSConfig, AIFSTrainer, AIFSTrainingArguments

name = "google/vit-base-patch16-224-in21k"
data = load_dataset("imagefolder", data_dir="my_images")


def model_init():
    base = AutoModelForImageClassification.from_pretrained(name, num_labels=2)
    return get_peft_model(base, AIFSConfig(encoder_adapter=LoraConfig(r=8)))


def space(trial):  # names of training arguments, those of the method among them
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True),
        "alpha": trial.suggest_float("alpha", 0.1, 2.0),
    }


trainer = AIFSTrainer(args=AIFSTrainingArguments("run"), model_init=model_init, train_dataset=data["train"],
                      eval_dataset=data["validation"], processing_class=AutoImageProcessor.from_pretrained(name))
best = trainer.hyperparameter_search(space, n_trials=20)
for setting, value in best.hyperparameters.items():
    setattr(trainer.args, setting, value)
trainer.train()  # the best trial again, bit for bit
```

"""

MODES = """
What comes of a mode against the plain training of two epochs, for the recipes `discovery` and `paper`: weights, mask,
directions and groups. "Equal" is to the bit; "within" is a share of each tensor's largest entry, with the same number
of updates and the same groups (of the weights that read the attribute, which amplify rounding, six times that share; of
the evidence, which has jumps, 0.15). "As in `Trainer`" changes a training by design: plain training equals that of
`Trainer`, and a training resumed within an epoch ends where an uninterrupted one ends, to the bit. An own loop with
`EpochHook` has the same outcomes for compilation, checkpointing, accumulation, bfloat16 and attention.

A streamed training set in its own order is compared with the same examples in memory in that order: equal to the bit.
Recipe `paper` also trains a frozen encoder on it as it is; `discovery` would draw examples then, unless
`method_options={"balance": "logits"}` or `cache_latents=True`. See [Streamed data](finetune.md#streamed-data).
"""


def cell(text: str) -> str:
    """Text that cannot end a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def quoted(words: str) -> str:
    """The first words of an error."""
    words = re.sub(r" at 0x[0-9a-f]+", "", " ".join(words.split()))
    return f"refused: *{cell(words if len(words) <= LONGEST else words[: LONGEST - 3] + '...')}*"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns."""
    lines = ["| feature | here |", "|---|---|", *(f"| {cell(name)} | {what} |" for name, what in rows)]
    return "\n".join(lines) + "\n"


def features(tables: dict[str, list[peft_features.Feature]]) -> str:
    """Tables of features with their headings."""
    out = ""
    for title, rows in tables.items():
        told = ((row.name, "works" if row.refused is None else quoted(row.refused)) for row in rows)
        out += f"\n### {title}\n\n{table(told)}"
    return out


def arguments() -> str:
    """Every argument of `Trainer` and `TrainingArguments`."""
    rows: dict[str, str] = {}
    rows |= dict.fromkeys(trainer.EQUAL, "plain training equals that of `Trainer`")
    rows |= dict.fromkeys(trainer.CHECKED, "works, by a test of its own")
    rows |= dict.fromkeys(trainer.INHERITED, "code of transformers that is not touched here")
    with tempfile.TemporaryDirectory() as folder:
        for name, (value, _) in trainer.REFUSED.items():
            try:
                AIFSTrainingArguments(output_dir=folder, use_cpu=True, **{name: value})
            except ValueError as error:
                rows[name] = quoted(str(error))
    groups: dict[str, list[str]] = {}
    for name, what in sorted(rows.items()):
        groups.setdefault(what, []).append(f"`{name}`")
    order = sorted(groups, key=lambda what: (what.startswith("refused"), what))
    return table((", ".join(groups[what]), what) for what in order)


def outcome(what: float | str) -> str:
    """A cell of the table of modes."""
    if isinstance(what, float):
        return "equal" if what == 0.0 else f"equal within {what:g}"
    return what if what == training_modes.AS_TRAINER else quoted(what)


def modes() -> str:
    """Modes of training, frozen and with LoRA."""
    out = ""
    for title, rows in training_modes.TABLES.items():
        lines = [f"\n#### {title}\n", "| mode | frozen encoder | LoRA |", "|---|---|---|"]
        lines += [f"| {row.name} | {outcome(row.outcome('frozen'))} | {outcome(row.outcome('LoRA'))} |" for row in rows]
        out += "\n".join(lines) + "\n"
    return out


def searches() -> str:
    """What `hyperparameter_search` does."""
    works = ((name, "works") for name in search.WORKS)
    return table([*works, *((name, quoted(words)) for name, (_, _, words) in search.REFUSED.items())])


def contract() -> str:
    """Recipes against `check_estimator`; recipes with the same exceptions together."""
    groups: dict[str, list[str]] = {}
    for recipe in sklearn_contract.RECIPES:
        checks: dict[str, list[str]] = {}
        for check, why in sklearn_contract.expected_failed_checks(recipe).items():
            checks.setdefault(why, []).append(f"`{check}`")
        told = "; ".join(
            f"{names[0] if len(names) == 1 else f'{len(names)} checks'}: {why}" for why, names in checks.items()
        )
        groups.setdefault(told, []).append(f"`{recipe}`")
    lines = ["| recipe | checks that fail, and why |", "|---|---|"]
    lines += [f"| {', '.join(recipes)} | {cell(told)} |" for told, recipes in groups.items()]
    return "\n".join(lines) + "\n"


def render() -> str:
    """The page."""
    head = HEAD.format(
        peft=version("peft"), transformers=version("transformers"), sklearn=version("scikit-learn")
    )  # fmt: skip
    return "".join(
        [
            head,
            "\n## PEFT\n",
            features(peft_features.TABLES),
            "\n## transformers\n\n### Arguments of `Trainer` and `TrainingArguments`\n\n",
            arguments(),
            "\n### Modes of training\n",
            MODES,
            modes(),
            "\n### `hyperparameter_search`, with Optuna\n",
            SEARCH,
            searches(),
            "\n## scikit-learn\n",
            features(sklearn_features.TABLES),
            "\n### `check_estimator`\n\nEvery recipe passes scikit-learn's own checks but for these.\n\n",
            contract(),
        ]
    )


def main() -> None:
    """Write the page, or say that it is not up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page would change")
    text = render()
    if parser.parse_args().check:
        sys.exit(0 if PAGE.read_text() == text else f"{PAGE.name} is not up to date")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
