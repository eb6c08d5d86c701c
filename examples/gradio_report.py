"""A Gradio page for an adapter: its report, its card, and predictions on pictures of your own.

Run `python examples/gradio_report.py RUN`: RUN is what `aifs finetune --output-dir RUN` wrote, here on pictures.
Run `python examples/gradio_report.py`: makes a small run, builds the page and does not start a server.
"""

import sys
from html import escape
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aifs_peft import cli


def page(folder: Path) -> Any:
    """The page, for `.launch()`."""
    import gradio as gr
    import transformers

    classify = transformers.pipeline("image-classification", model=str(folder))
    report = Path(folder / "report.html").read_text(encoding="utf-8")
    card = (folder / "README.md").read_text(encoding="utf-8").split("\n---\n", 1)[1]  # without its metadata

    def predict(picture: Any) -> dict[str, float]:
        return {entry["label"]: entry["score"] for entry in classify(picture)}

    with gr.Blocks(title="Shortcut report") as blocks:
        with gr.Tab("Report"):
            gr.HTML(f'<iframe srcdoc="{escape(report)}" title="Report" style="width:100%;height:90vh;border:0">')
        with gr.Tab("Card"):
            gr.Markdown(card)
        with gr.Tab("Try it"):
            gr.Interface(predict, gr.Image(type="pil"), gr.Label())
    return blocks


def main(run: str | None) -> None:
    """Write the report of a run and show it."""
    with TemporaryDirectory() as temporary:
        folder = Path(run or temporary)
        if run is None:
            options = '{"n_train": 400, "n_validation": 80, "n_test": 80, "image_size": 32}'
            cli.main(["finetune", "--dataset", "spurious_scenes", "--dataset-options", options, "--adapter", "none",
                      "--output-dir", temporary, "--quiet"])  # fmt: skip
        cli.main(["report", str(folder)])
        blocks = page(folder)
        if run is not None:
            blocks.launch()
        print(f"a page of {len(blocks.blocks)} parts was made; it is started where a run is given")


if __name__ == "__main__":
    if find_spec("gradio") is None:
        print("skipped: Gradio is missing; `pip install -e '.[demo]'` without constraints.txt (it needs Pillow < 13)")
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else None)
