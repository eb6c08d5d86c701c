"""Files of experiments: what they may say, and how mistakes in them are told."""

import json
from pathlib import Path

import pytest
from bench_experiment import write_experiment

from aifs_peft.bench import read_experiment
from aifs_peft.bench.experiment import MethodEntry, experiment_of, where
from aifs_peft.bench.sets import load
from aifs_peft.errors import AIFSError, DataNotFoundError, InvalidConfigError, MissingDependencyError
from aifs_peft.methods import names

FILES = sorted((Path(__file__).parents[2] / "benchmarks" / "experiments").glob("*.json"))
DATA = [{"name": "d", "dataset": "digits_on_scenes"}]


def method(**entry: object) -> dict[str, object]:
    """An experiment of one method."""
    return {"name": "x", "data": DATA, "methods": [{"name": "a", **entry}]}


def data(**entry: object) -> dict[str, object]:
    """An experiment on one data set."""
    return {"name": "x", "data": [{**DATA[0], **entry}], "methods": ["erm"]}


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_committed_experiments_can_be_read(path: Path) -> None:
    experiment = read_experiment(path)
    assert experiment.name == path.stem
    assert experiment.about
    assert len(experiment.seeds) >= 5 or experiment.name == "small"


def test_the_main_table_has_every_method_that_works_on_latents() -> None:
    from aifs_peft.methods import get

    frozen = {entry.method for entry in read_experiment(FILES[0].with_name("frozen.json")).methods}
    # Their cost per fit is tens of seconds on these latents; they have files of their own in the older tables.
    slow = {"ags", "ule-saliency"}
    assert frozen | slow >= {name for name in names() if get(name).on_latents}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1], "an experiment must be a JSON object"),
        ({"name": "x", "dataa": []}, "did you mean 'data'"),
        ({"name": "x", "data": DATA}, "methods needs at least one entry"),
        ({"name": "x", "data": DATA, "methods": ["emr"]}, "did you mean 'erm'"),
        ({"name": "x", "data": DATA, "methods": ["erm", "erm"]}, "different names"),
        ({"name": "../x", "data": DATA, "methods": ["erm"]}, "becomes a folder"),
        ({"name": "x", "data": DATA, "methods": ["erm"], "regime": "forzen"}, "did you mean 'frozen'"),
        ({"name": "x", "data": DATA, "methods": ["erm"], "selection": "oracle"}, "selection must be one of"),
        ({"name": "x", "data": DATA, "methods": ["erm"], "budget": 0}, "budget must be an integer of at least 1"),
        ({"name": "x", "data": DATA, "methods": ["erm"], "seeds": []}, "seeds must be different"),
        ({"name": "x", "data": DATA, "methods": ["erm"], "seeds": [-1]}, "seeds must be an integer from 0"),
        ({"name": "x", "data": DATA, "methods": ["erm"], "focus": "aifs"}, "focus must be one of 'erm'"),
        ({"name": "x", "data": [{"name": "d"}], "methods": ["erm"]}, "dataset"),
        (method(method="erm", config={"a": 1}), "'aifs-closed'"),
        (method(method="aifs-closed", options={"a": 1}), "itself"),
        (method(method="erm", group_labels=3), "group_labels is"),
        (data(aligned_share=2), "aligned_share must be"),
        (data(encoder={"pooling": "men"}), "did you mean 'mean'"),
    ],
)
def test_mistakes_are_told(content: object, said: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        experiment_of(content)
    assert said in str(caught.value)


def test_a_file_that_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="there is no experiment"):
        read_experiment(tmp_path / "none.json")
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(InvalidConfigError, match="is no JSON"):
        read_experiment(tmp_path / "half.json")


def test_parts_of_an_experiment(tmp_path: Path) -> None:
    experiment = read_experiment(write_experiment(tmp_path, focus="erm-closed"))
    part = experiment.only(methods=["erm"], seeds=[1])
    assert [entry.name for entry in part.methods] == ["erm"]
    assert (part.seeds, part.focus) == ((1,), None)
    with pytest.raises(InvalidConfigError, match="has no method 'rem'"):
        experiment.only(methods=["rem"])
    with pytest.raises(InvalidConfigError, match="has no seed '7'"):
        experiment.only(seeds=[7])


def test_places_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIFS_SHARED", "/inputs")
    assert where("$AIFS_SHARED/data/x") == "/inputs/data/x"
    assert where("package:json/tool.py") == str(Path(json.__file__).parent / "tool.py")
    monkeypatch.delenv("AIFS_SHARED")
    with pytest.raises(DataNotFoundError, match="AIFS_SHARED"):
        where("$AIFS_SHARED/data/x")
    with pytest.raises(MissingDependencyError, match="no-such-package"):
        where("package:no_such_package/model")


def test_options_that_a_loader_does_not_have(tmp_path: Path) -> None:
    def loading(**changes: object) -> None:
        content = {"name": "x", "data": [{**DATA[0], **changes}], "methods": ["erm"]}
        load(experiment_of(content).data[0], 0)

    with pytest.raises(AIFSError, match="has no option 'contrst'"):
        loading(options={"contrst": 1})
    with pytest.raises(InvalidConfigError, match="takes no aligned share"):
        loading(dataset="tweets_dialect", data_dir=str(tmp_path), aligned_share=0.9)
    with pytest.raises(InvalidConfigError, match="needs data_dir"):
        loading(dataset="tweets_dialect")
    with pytest.raises(DataNotFoundError, match=r"tweets\.csv\.gz is missing"):
        loading(dataset="tweets_dialect", data_dir=str(tmp_path))


def test_a_method_by_its_name_alone() -> None:
    experiment = experiment_of({"name": "x", "data": DATA, "methods": ["erm", {"name": "jtt", "tune": False}]})
    assert experiment.methods == (MethodEntry("erm", "erm"), MethodEntry("jtt", "jtt", tune=False))
