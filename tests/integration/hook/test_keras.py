"""Keras itself, with torch below it: what it saves and loads is noted, and equal weights are known to be equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllaunch_agent import weights
from tests.coverage import packages
from tests.integration.hook.conftest import Traced

pytestmark = pytest.mark.real("torch")

BEGIN = """
import keras

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
model.compile("adam", "mse")
"""
SAVE = """
keras.utils.set_random_seed(1)
kept = keras.callbacks.ModelCheckpoint("epoch-{epoch}.weights.h5", save_weights_only=True)
model.fit(keras.ops.ones((8, 4)), keras.ops.ones((8, 2)), batch_size=4, epochs=2, verbose=0, callbacks=[kept])
model.save("first.keras")
model.save("second.keras")
model.save_weights("first.weights.h5")
"""
LOAD = """
import pathlib

keras.models.load_model(filepath="first.keras").save("third.keras")
model.load_weights(pathlib.Path("first.weights.h5"))
model.layers[0].bias.assign_add([0, 1])
model.save("other.keras")
for call in (lambda: keras.models.load_model("none.keras"), lambda: model.save("none.txt")):
    try: call()
    except ValueError as error: print(error)
print(keras.models.load_model.__name__, keras.saving.load_model is keras.models.load_model)
"""


@pytest.fixture
def with_keras(traced: Traced) -> Traced:
    python, problem = packages.python()
    if python is None:
        pytest.skip(f"Keras cannot be installed: {problem}")
    traced.python = python
    traced.variables["KERAS_BACKEND"] = "torch"
    return traced


def said(traced: Traced) -> list[tuple[str, ...]]:
    return [
        (record.kind, *record.fields[:-1], Path(record.fields[-1]).name) for record in traced.records("SLE")
    ]


def test_what_keras_saves_and_loads_is_noted_and_known_by_its_weights(with_keras: Traced) -> None:
    assert with_keras.output(BEGIN + SAVE) == ""
    assert said(with_keras) == [
        ("S", "keras.save_weights", "", "epoch-1.weights.h5"),
        ("S", "keras.save_weights", "", "epoch-2.weights.h5"),
        ("S", "keras.save", "", "first.keras"),
        ("S", "keras.save", "", "second.keras"),
        ("S", "keras.save_weights", "", "first.weights.h5"),
    ]
    with_keras.alike(BEGIN + LOAD)
    assert said(with_keras)[5:] == [
        ("L", "keras.load", "first.keras"),
        ("S", "keras.save", "", "third.keras"),
        ("L", "keras.load_weights", "first.weights.h5"),
        ("S", "keras.save", "", "other.keras"),
    ]
    found = {path.name: weights.read(path) for path in with_keras.code.glob("*[a-z].[hk]*")}
    equal = ("first.keras", "second.keras", "third.keras", "first.weights.h5", "epoch-2.weights.h5")
    digests = {path: read.digest for path, read in found.items() if read}
    assert len({digests[path] for path in equal}) == 1
    assert len(set(digests.values())) == 3
    assert None not in digests.values()
    steps = {path: read.step for path, read in found.items() if read}
    assert steps == {**dict.fromkeys(equal, 4), "epoch-1.weights.h5": 2, "other.keras": None}
