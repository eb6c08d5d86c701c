"""Write `docs/architectures.md`: what AIFS does on every architecture of transformers' classification mappings.

    python benchmarks/render_architectures.py

Tiny random models, about 20 minutes of processor time. Rows that say "not tried" are architectures that transformers
itself does not run here (a package is missing, or no encoder can be saved alone).
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

import architectures  # noqa: E402 - the path is set above
import transformers  # noqa: E402

HEAD = """# Architectures

Every architecture of transformers' image and sequence classification mappings, as a tiny random model: a classifier is
loaded on a checkpoint of its encoder alone, the adapter is attached, trained for two steps, disabled, saved, reloaded
onto the same checkpoint, merged and unloaded. *equal* means: disabled and unloaded the model gives the base model's
logits, reloaded and merged it gives the trained ones, and everything that is trained got a gradient. *refused* quotes
the error that a user meets when attaching or merging. The test of this sweep (`pytest -m architectures`) also reloads
every adapter in a fresh process, onto the encoder's checkpoint alone, and compares the logits.

Layers that a checkpoint of the encoder lacks are drawn at random by `from_pretrained`. They are trained and saved with
the adapter, with a frozen encoder, too; the last column names them (with LoRA).

Rendered by `benchmarks/render_architectures.py` with transformers {transformers} and PEFT {peft}: {equal} of {tried}
architectures that run here work with a frozen encoder, {lora} with LoRA; the others are refused.
"""


def main() -> None:
    """Run the sweep and write the page."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    rows = []
    for kind in architectures.MAPPINGS:
        for model_type in architectures.names(kind):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(architectures.run_one(kind, model_type, Path(folder))[0])
            print(rows[-1], flush=True)
    tried = [row for row in rows if not row.frozen.startswith("not tried")]
    text = HEAD.format(
        transformers=version("transformers"),
        peft=version("peft"),
        equal=sum(row.frozen == "equal" for row in tried),
        lora=sum(row.lora == "equal" for row in tried),
        tried=len(tried),
    )
    for kind, title in (("image", "Images"), ("text", "Texts")):
        text += f"\n## {title}\n\n| architecture | frozen encoder | LoRA | new layers |\n|---|---|---|---|\n"
        for row in (row for row in rows if row.kind == kind):
            same = row.lora if row.lora != row.frozen else ("equal" if row.frozen == "equal" else "the same")
            new = f"`{row.new_layers}`" if row.new_layers else ""
            text += f"| `{row.model_type}` | {cell(row.frozen)} | {cell(same)} | {new} |\n"
    (ROOT / "docs" / "architectures.md").write_text(text)


def cell(text: str) -> str:
    """Text that cannot end a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
