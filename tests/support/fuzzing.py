"""Malformed inputs for the public functions, drawn by Hypothesis, and what came of each.

Each target is a strategy and a call; those that read files are in `fuzzing_files.py`. A call answers with a result, or
with an `AIFSError`; anything else is a fault, and so is a call that takes longer than `SECONDS`.
"""

import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from fuzzing_files import FILE_TARGETS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from aifs_peft import AIFSClassifier, AIFSConfig, AIFSTrainingArguments, LatentSchedule, audit, discover
from aifs_peft.errors import AIFSError
from aifs_peft.metrics import group_metrics

SECONDS = 20
KEPT = 20  # faults told in full
_SIZES = st.integers(0, 40)
_NUMBERS = st.one_of(
    st.floats(width=32), st.integers(-3, 5), st.sampled_from([0, 1e30, -1e-30, 2**62, -(2**63), 10**400, True])
)
_ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3), st.just([]),
    st.just({}), st.just(object()), st.lists(_NUMBERS, max_size=4),
    st.sampled_from([10**400, float("nan"), np.nan, 1e308]),
)  # fmt: skip


@st.composite
def _matrices(draw: st.DrawFn) -> Any:
    """Latents, mostly sound in shape, at times with a cell or the whole of another kind."""
    n, d = draw(_SIZES), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    z: Any = rng.standard_normal((n, d))
    match draw(st.integers(0, 12)):
        case 0 if z.size:
            z.flat[draw(st.integers(0, z.size - 1))] = draw(st.sampled_from([np.nan, np.inf, 1e300, -1e300]))
        case 1:
            z = z.astype(draw(st.sampled_from(["float16", "int8", "bool", "complex128", "object", "U8", "S8"])))
        case 2:
            z = z[..., None] if draw(st.booleans()) else z.ravel()
        case 3:
            z = z * draw(st.sampled_from([0.0, 1e-300, 1e150, 1e300]))
        case 4:
            z = z.tolist()
        case 5:
            z = draw(_ANYTHING)
        case 6 if n:
            z = np.repeat(z[:1], n, axis=0)
    return z


_LABEL_KINDS = ["float64", "int8", "bool", "U3", "object", "complex64", "uint64", "M8[s]"]


@st.composite
def _labels(draw: st.DrawFn, n: int | None = None) -> Any:
    """Labels or groups."""
    n = draw(_SIZES) if n is None or draw(st.integers(0, 9)) == 0 else n
    y: Any = np.random.default_rng(draw(st.integers(0, 99))).integers(0, draw(st.integers(1, 4)), n)
    match draw(st.integers(0, 12)):
        case 0:
            y = y.astype(draw(st.sampled_from(_LABEL_KINDS)))
        case 1:
            y = draw(st.lists(_NUMBERS, min_size=n, max_size=n))
        case 2 if n:
            y = y.astype(float)
            y[0] = draw(st.sampled_from([np.nan, np.inf, 0.5, -1, 1e300]))
        case 3:
            y = draw(_ANYTHING)
        case 4:
            y = np.stack([y, y], axis=1)
        case 5 if n:
            y[0] = draw(st.sampled_from([-1, 2**62, 100_000, -(2**63)]))
        case 6:
            y = [draw(st.one_of(st.none(), st.text(max_size=2), st.integers(0, 2))) for _ in range(n)]
    return y


@st.composite
def _latents_and_labels(draw: st.DrawFn) -> tuple[Any, Any]:
    z = draw(_matrices())
    n = len(z) if hasattr(z, "__len__") else 3
    return z, draw(_labels(n))


@st.composite
def _metric_inputs(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(_SIZES)
    out = {"y_true": draw(_labels(n)), "groups": draw(_labels(n))}
    out["y_pred"] = draw(st.one_of(_labels(n), _matrices()))
    if draw(st.booleans()):
        out["n_boot"] = draw(st.sampled_from([0, 3, -1, "x", None, 1.5, True]))
    return out


def _options(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), _ANYTHING, max_size=3)


_CONFIG = [name for name in AIFSConfig.__dataclass_fields__ if name not in ("peft_version", "auto_mapping")]
_SCHEDULE = list(LatentSchedule.__dataclass_fields__)
_OWN_ARGUMENTS = [
    name for name in AIFSTrainingArguments.__dataclass_fields__
    if name not in super(AIFSTrainingArguments, AIFSTrainingArguments).__dataclass_fields__
]  # fmt: skip


def _metrics(given_: dict[str, Any]) -> None:
    group_metrics(**given_)


def _classifier(given_: tuple[Any, Any]) -> None:
    z, y = given_
    AIFSClassifier().fit(z, y).predict(z)


TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {
    "group_metrics": (_metric_inputs(), _metrics),
    "discover": (_latents_and_labels(), lambda zy: discover(*zy)),
    "AIFSClassifier": (_latents_and_labels(), _classifier),
    "audit": (_latents_and_labels(), lambda zy: audit(*zy)),
    "AIFSConfig": (_options(_CONFIG), lambda options: AIFSConfig(**options)),
    "LatentSchedule": (_options(_SCHEDULE), lambda options: LatentSchedule(**options)),
    "AIFSTrainingArguments": (
        _options(_OWN_ARGUMENTS), lambda options: AIFSTrainingArguments(output_dir="x", use_cpu=True, **options)
    ),
    **FILE_TARGETS,
}  # fmt: skip


# scikit-learn's own contract asks its estimators for a TypeError where a cell is no number.
DOCUMENTED: dict[str, tuple[type[Exception], ...]] = {"AIFSClassifier": (TypeError,)}


class _LateError(BaseException):
    """Not an Exception, so that no handler takes it for a failed attempt."""


def _late(*_: Any) -> None:
    raise _LateError


def fuzz(name: str, cases: int, *, seed: int = 0, seconds: float = 600) -> dict[str, Any]:
    """Draw cases for one target.

    Args:
        name: in `TARGETS`.
        cases: how many.
        seed: of the drawing.
        seconds: no further case is run after these.

    Returns:
        Numbers of "cases", "accepted" and "refused", and "faults": error, message and input of each kind.
    """
    strategy, call = TARGETS[name]
    told: dict[str, Any] = {"cases": 0, "accepted": 0, "refused": 0}
    faults: dict[str, str] = {}
    end = time.monotonic() + seconds

    @hypothesis_seed(seed)
    @settings(max_examples=cases, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def run(drawn: Any) -> None:
        if time.monotonic() > end:
            raise KeyboardInterrupt  # the one exception that ends Hypothesis's drawing at once
        told["cases"] += 1
        before = signal.signal(signal.SIGALRM, _late)
        signal.alarm(SECONDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call(drawn)
            told["accepted"] += 1
        except (AIFSError, *DOCUMENTED.get(name, ())):
            told["refused"] += 1
        except _LateError:
            faults.setdefault("too slow", repr(drawn)[:300])
        except Exception as error:  # noqa: BLE001 - finding these is the point
            line = error.__traceback__
            while line is not None and line.tb_next is not None:
                line = line.tb_next
            place = f"{line.tb_frame.f_code.co_name}:{line.tb_lineno}" if line else ""
            faults.setdefault(
                f"{type(error).__name__} in {place}: {str(error)[:120]}", " ".join(repr(drawn).split())[:300]
            )
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)

    try:
        run()
    except KeyboardInterrupt:
        if time.monotonic() <= end:  # somebody's Ctrl-C
            raise
    return {**told, "faults": [list(item) for item in faults.items()][:KEPT]}
