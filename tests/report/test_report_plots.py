"""Figures: one element each, in the page's colours, named, the same every time; text from data is no formula."""

from xml.etree import ElementTree as ET

import pytest

from aifs_peft.report.plots import draw_associations, draw_cells, draw_evidence, draw_words, figure, panels, to_svg
from aifs_peft.report.plots.cells import cells_words
from aifs_peft.report.plots.theme import VARIABLES

SVG = "{http://www.w3.org/2000/svg}"


def drawn(draw, title: str = "title", description: str = "description") -> str:
    with figure(2.0) as (made, axes):
        draw(axes)
        return to_svg(made, title, description)


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter(f"{SVG}text")]


def lines(ax) -> None:
    ax.plot([0, 1], [0, 1])
    ax.set_title("$x_ and \\frac{ & <b>")


def test_a_figure_takes_the_pages_colours_and_font() -> None:
    svg = drawn(lines)
    for colour, variable in VARIABLES.items():
        assert colour not in svg
        assert variable in svg or variable == "var(--band)"
    assert "DejaVu" not in svg
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    assert "width" not in root.attrib
    assert root[0].text == "title"
    assert root[1].text == "description"


def test_text_from_data_is_no_formula_and_no_markup() -> None:
    assert "$x_ and \\frac{ & <b>" in texts(drawn(lines))


def test_figures_repeat_and_do_not_share_names() -> None:
    one, again, other = drawn(lines), drawn(lines), drawn(lines, title="other")
    assert one == again
    names = [{node.get("id") for node in ET.fromstring(svg).iter() if node.get("id")} for svg in (one, other)]
    assert not names[0] & names[1]
    for svg, own in zip((one, other), names, strict=True):
        used = {v[5:-1] for node in ET.fromstring(svg).iter() if (v := node.get("clip-path") or "").startswith("url(#")}
        assert used
        assert used <= own


def test_before_and_after_in_words_and_in_the_figure() -> None:
    rows = [{"cell": "conflicting", "n": 25, "plain": {"accuracy": 0.28, "low": 0.1, "high": 0.5}, "method": {}}]
    sides = [("plain", "plain training"), ("method", "this model")]
    assert cells_words(rows, sides) == "conflicting: plain training 28.0 %, this model -."
    svg = drawn(lambda ax: draw_cells(ax, rows, sides))
    assert "conflicting" in texts(svg)
    assert "n = 25" in texts(svg)


@pytest.mark.parametrize("found", [True, False])
def test_evidence_names_its_scale(found: bool) -> None:
    scale = [(0.0, "weak"), (40.0, "clear")]
    got = texts(
        drawn(lambda ax: draw_evidence(ax, 52.0 if found else 0.0, found=found, candidates=[-900.0, 3.0], scale=scale))
    )
    assert {"weak", "clear", "gate", "passes for chance"} <= set(got)
    assert ("52" in got) == found


def test_columns_and_words_that_are_undefined_are_drawn_as_missing() -> None:
    row = {"column": "a", "strength": None, "null_high": None, "significant": False}
    assert "a" in texts(drawn(lambda ax: draw_associations(ax, [row])))
    word = {"word": "b", "score": None, "null_high": None, "significant": False}
    assert "b" in texts(drawn(lambda ax: draw_words(ax, [word])))


def test_panels_of_a_log() -> None:
    log = [
        {"epoch": 0, "evidence": 60.0, "directions": 1.0},
        {"epoch": 1.0, "loss": 1.0, "invariance": 0.2, "grad_norm": 9.0, "learning_rate": 0.1},
        {"epoch": 1.0, "eval_accuracy": 0.7, "eval_loss": 0.5, "eval_runtime": 3.0, "eval_worst_class_accuracy": 0.6},
        {"epoch": 1.0, "directions": 1.0, "mask_max": 3.0},
        {"epoch": 2.0, "loss": 0.5, "invariance": None},
        {"epoch": 2.0, "directions": 1.0, "mask_max": 4.0},
        {"epoch": 2.0, "train_runtime": 1.0, "train_loss": 0.7, "train_steps_per_second": 3.0},
    ]
    made = {panel.title: panel.series for panel in panels(log)}
    assert made == {
        "Loss and its terms": {"loss": [(1.0, 1.0), (2.0, 0.5)], "invariance": [(1.0, 0.2)]},
        "Accuracy on the evaluation set": {"average": [(1.0, 0.7)], "worst class": [(1.0, 0.6)]},
        "What the method measured, larger numbers": {"mask max": [(1.0, 3.0), (2.0, 4.0)]},
    }
    assert panels([]) == []
    assert "from first to last. loss: 1 to 0.5" in panels(log)[0].words()
    assert "average" in texts(drawn(panels(log)[1].draw))


def test_the_mask_of_a_saved_adapter_is_shown(tmp_path) -> None:
    import json

    from peft import get_peft_model
    from report_runs import summary

    from aifs_peft.models import load_model
    from aifs_peft.report import render_html, save_run
    from aifs_peft.tuner import AIFSConfig, find_aifs_layer

    model = get_peft_model(load_model("tiny_clip", modality="image", label_names=["no", "yes"]), AIFSConfig.paper())
    run = summary(model="tiny_clip", method="aifs-paper", found=None)
    save_run(model, None, run, tmp_path)
    assert "Attribution and mask" not in render_html(tmp_path)  # nothing was attributed yet
    state = find_aifs_layer(model).state
    ema = state.ema.clone() + 1e-3
    ema[5] = 1.0
    mask = state.mask.clone()
    mask[3] = 0.5
    state.update(ema=ema, mask=mask)
    save_run(model, None, run, tmp_path)
    page = render_html(tmp_path)
    assert f"1 of {len(ema)} dimensions hold half of the attribution" in page
    assert "between 0 and 0.5" in page
    assert json.loads((tmp_path / "summary.json").read_text())["method"] == "aifs-paper"
