"""A table of texts that the tiny random RoBERTa of `report_runs` can read."""

from pathlib import Path


def save_texts(folder: Path) -> Path:
    """A folder of one CSV file: texts, string labels, a group column."""
    folder.mkdir()
    lines = ["sentence,verdict,kind"]
    for i in range(120):
        kind, verdict = i % 2, (i // 2) % 2
        lines.append(f"{('the', 'you')[kind]} is {('good', 'bad')[verdict]} {i},{('fine', 'toxic')[verdict]},{kind}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder
