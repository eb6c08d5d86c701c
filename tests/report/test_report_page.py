"""The report: true sentences for what is there and what is not, everything from data escaped, no recomputation."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from audit_fields import changed, found_audit, null_audit
from report_runs import comparison, summary

from aifs_peft.errors import InvalidInputError
from aifs_peft.methods import get, names
from aifs_peft.report import audit_html, audit_page, plot_audit, render_html, write_audit_folder, write_report

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
ARABIC = "\u0642\u0637\u0629 \u0633\u0648\u062f\u0627\u0621"
VOID = {"meta", "link", "img", "br", "path", "use", "rect", "image"}


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; refuses what does not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def history() -> list[dict[str, Any]]:
    log: list[dict[str, Any]] = [{"epoch": 0, "evidence": 60.0, "conflicting_share": 0.05}]
    for epoch in (1.0, 2.0, 3.0):
        log += [
            {"epoch": epoch, "loss": 1 / epoch, "cross_entropy": 0.5 / epoch, "invariance": 0.1, "grad_norm": 3.0},
            {"epoch": epoch, "eval_accuracy": 0.8, "eval_worst_class_accuracy": 0.7 + epoch / 50, "eval_runtime": 1.0},
            {"epoch": epoch, "directions_cosine": 0.9 + epoch / 100, "mask_max": 3.0 + epoch},
        ]
    return [*log, {"epoch": 3.0, "train_runtime": 5.0, "train_loss": 0.4}]


@pytest.fixture(scope="module")
def found():
    return found_audit()


@pytest.fixture(scope="module")
def nothing():
    return null_audit()


def test_a_full_report_answers_every_question(found) -> None:
    run = summary(comparison=comparison(), history=history(), found=True, baseline={"kind": "erm", "note": "by ERM."})
    page = Page(render_html(run, found))
    questions = [
        "Is there a shortcut?",
        "What is it?",
        "Who is hurt, did it help?",
        "What did training do?",
        "Can I trust it?",
    ]
    assert [q for q in questions if q in page.text] == questions
    assert found.sentence in page.text
    assert "28 → 74 %" in page.text
    assert "Conflicting examples: 28.0 % before, 74.0 % after" in page.text
    assert "Plain training: by ERM." in page.text
    assert "Class labels only" in page.text
    for name in ("Evidence against what chance reaches", "Latents along the class", "Columns of the metadata",
                 "Words that tell", "Accuracy before and after", "Loss and its terms", "Accuracy on the evaluation set",
                 "What the method measured"):  # fmt: skip
        assert name in page.text
    assert page.text.index(questions[0]) < page.text.index(questions[-1])


def test_the_page_needs_no_network_and_runs_no_script(found) -> None:
    text = render_html(summary(history=history()), found, [f"text {i}" for i in range(600)])
    page = Page(text)
    assert not page.all("script")
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)
    policy = next(a for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")["content"]
    assert "default-src 'none'" in policy


def test_the_page_is_accessible(found) -> None:
    page = Page(render_html(summary(comparison=comparison(), history=history()), found))
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(image.get("alt") for image in page.all("img"))
    figures = [a for a in page.all("svg") if "role" in a]
    assert len(figures) >= 6
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))  # also within figures, of which several stand on one page
    for figure in figures:
        assert figure["role"] == "img"
        assert set(figure["aria-labelledby"].split()) <= set(ids)
    assert len(page.all("table")) == len(page.all("caption"))
    assert {a["scope"] for a in page.all("th")} == {"col", "row"}
    for name in page.all("a"):
        assert name["href"].removeprefix("#") in ids


@pytest.mark.parametrize("method", names())
def test_every_method_gets_true_sentences(method: str) -> None:
    page = Page(render_html(summary(method=method, found=None, state={})))
    assert "does not report whether there is a shortcut" in page.text
    assert "This run does not say." in page.text
    assert ("this method is an oracle" in page.text) == (get(method).supervision == "groups")
    assert "The training set was not audited in this run" in page.text
    assert "No history of the training was kept." in page.text
    assert "Plain training was not measured beside it in this run." in page.text


def test_nothing_found_is_an_answer(nothing) -> None:
    assert not nothing.found
    for page in (Page(render_html(summary(found=False, state={}), nothing)), Page(audit_page(nothing))):
        assert "None was found." in page.text
        assert nothing.sentence in page.text
        assert "What would have been seen" in page.text
        assert "does not show that there is nothing" in page.text
        assert "Yes." not in page.text
        assert "Go against the shortcut" not in page.text


def test_an_audit_alone_speaks_of_no_training(found) -> None:
    page = Page(audit_page(found, title="Scans"))
    assert page.all("title")
    assert "Scans" in page.text
    assert "What did training do?" not in page.text
    assert "did it help?" not in page.text
    assert "Training was told" not in page.text
    assert found.harm.sentence in page.text
    assert "Nothing was trained" in page.text


def test_an_empty_summary_is_told_as_empty() -> None:
    page = Page(render_html({"method": "erm", "dataset": "toy", "task": "image-classification", "label_names": ["a"]}))
    assert "Nothing was measured on held-out examples." in page.text


def hostile_audit(found):
    word = f"{HOSTILE} {ARABIC} {'x' * 400}"
    frame = found.conflicting.assign(label=word, inferred=f"{word}2", scanner=word)
    frame["input"] = word
    return changed(
        found, sentence=word, conflicting=frame.rename(columns={"age": word}),
        groups=found.groups.assign(label=word, inferred=f"{word}2"),
        associations=found.associations.assign(column=[word, "$x_", "\\frac{"], shared=word),
        names=pd.DataFrame({"word": [word, "$"], "value": word, "score": 2.0, "null_high": 1.5, "significant": True}),
        projection=found.projection.assign(label=word, inferred=f"{word}2"),
        looked_at={**found.looked_at, "classes": {word: 5, "b": 6}, "warnings": [word], "detectable_sentence": word},
    )  # fmt: skip


def test_hostile_names_long_texts_and_right_to_left_text_stay_text(found, tmp_path: Path) -> None:
    audit = hostile_audit(found)
    changes = comparison()
    changes["rows"][0]["cell"] = changes["sentences"][0] = HOSTILE
    run = summary(
        method="erm", dataset=HOSTILE, model=HOSTILE, label_names=[HOSTILE, ARABIC], comparison=changes,
        history=[*history(), {"epoch": 1.0, "loss": 1.0, HOSTILE: 0.3}], group_definition=HOSTILE,
        provenance={"versions": {HOSTILE: HOSTILE}, "commit": HOSTILE}, selection={"rule": HOSTILE},
    )  # fmt: skip
    texts = [f"{HOSTILE} {ARABIC} {i}" for i in range(600)]
    for text in (render_html(run, audit, texts), audit_page(audit, texts, title=HOSTILE), audit_html(audit)):
        page = Page(text)
        assert not page.all("script")
        assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
        assert all((image["src"] or "").startswith("data:image/") for image in page.all("img"))
        assert "alert(1)" in page.text
        assert ARABIC in page.text
    assert len(render_html(run, audit, texts)) < 2_000_000


def test_the_notebook_view_is_short(found, nothing) -> None:
    for audit in (found, nothing):
        text = audit_html(audit)
        page = Page(text)
        assert audit.sentence in page.text
        assert len(text) < 10_000
        assert not page.all("html")
        assert len(page.all("tr")) == (6 if audit.found else 0)


def test_plots_for_notebooks_leave_the_look_of_others_alone(found, nothing) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    before = dict(mpl.rcParams)
    ax = Figure().subplots()
    assert plot_audit(found, ax) is ax
    assert {text.get_text() for text in ax.figure.legends[0].get_texts()} >= {"aligned", "conflicting", "cat", "dog"}
    other = plot_audit(nothing, Figure().subplots())
    assert "conflicting" not in {text.get_text() for text in other.figure.legends[0].get_texts()}
    assert dict(mpl.rcParams) == before


def test_a_report_is_written_from_the_folder_alone(found, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary(history=history())))
    write_audit_folder(found, tmp_path, [f"a text number {i}" for i in range(600)])
    rows = [{"row": 3, "label": "cat", "inferred": "cat", "toggled_to": "dog", "predicted": "cat", "probability": 0.9,
             "predicted_toggled": "dog", "probability_toggled": 0.2}]  # fmt: skip
    (tmp_path / "what_if.json").write_text(json.dumps(rows))
    first = write_report(tmp_path)
    assert first == tmp_path / "report.html"
    page = Page(first.read_text())
    row = int(found.conflicting["row"].iloc[0])
    assert f"a text number {row}" in page.text
    assert "1 of 1 predictions change" in page.text
    second = write_report(tmp_path, tmp_path / "other" / "page.html")
    assert second.read_text() == first.read_text()  # nothing in it depends on the time or on chance


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(f"{tmp_path} holds no summary.json")):
        write_report(tmp_path)
