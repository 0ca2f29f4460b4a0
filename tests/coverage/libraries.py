"""Libraries of machine learning, some of which open files in C++, Rust or C."""

from __future__ import annotations

from textwrap import dedent

from tests.coverage.target import GIVEN, Target, target

__all__ = ["TARGETS"]

_TORCH = ("torch",)
_SAFETENSORS = ("torch", "safetensors")
_NAMES = ("a.txt", "b.txt", "c.txt", "d.txt")
_LOADER = """
    import torch.utils.data

    class Lines(torch.utils.data.Dataset):
        names = ["a.txt", "b.txt", "c.txt", "d.txt"]

        def __len__(self):
            return len(self.names)

        def __getitem__(self, index):
            with open(self.names[index]) as file:
                return file.read()

    if __name__ == "__main__":
        loader = torch.utils.data.DataLoader(
            Lines(), num_workers=2, multiprocessing_context="{how}", persistent_workers={persistent}
        )
        for epoch in range({epochs}):
            list(loader)
    """


def _loader(how: str, persistent: bool) -> Target:
    kind = ", persistent" if persistent else ""
    return target(
        f"DataLoader, {how}{kind}",
        _LOADER.format(how=how, persistent=persistent, epochs=2 if persistent else 1),
        _NAMES,
        files={name: name for name in _NAMES},
        needs=_TORCH,
    )


def _torch(name: str, lines: str, path: str = "out.pt", reads: bool = True) -> Target:
    """One that writes a file and reads it again."""
    return target(
        name,
        f"import io\nimport torch\n\nweights = {{'a': torch.zeros(4)}}\n{lines}\n",
        (path,) if reads else (),
        (path,),
        needs=_TORCH,
    )


_KERAS = """
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    """


def _keras(name: str, lines: str, *paths: str, only_written: tuple[str, ...] = ()) -> Target:
    """One that writes files and reads them again."""
    script = dedent(_KERAS) + lines + "\n"
    return target(name, script, paths, (*paths, *only_written), needs=("keras", "torch", "h5py"))


def _tensors(name: str, script: str, needs: tuple[str, ...] = _SAFETENSORS) -> Target:
    return target(name, script, ("out.safetensors",), ("out.safetensors",), needs=needs)


TARGETS = (
    _torch("torch.save and load, a path", "torch.save(weights, 'out.pt')\ntorch.load('out.pt')"),
    _torch(
        "torch.save and load, without a known suffix", "torch.save(weights, 'out')\ntorch.load('out')", "out"
    ),
    _torch("torch.load, mmap", "torch.save(weights, 'out.pt')\ntorch.load('out.pt', mmap=True)"),
    _torch(
        "torch.save and load, a file object",
        "with open('out.pt', 'wb') as file:\n    torch.save(weights, file)\n"
        "with open('out.pt', 'rb') as file:\n    torch.load(file)",
    ),
    _torch(
        "torch.save into BytesIO",
        "data = io.BytesIO()\ntorch.save(weights, data)\n"
        "with open('out.pt', 'wb') as file:\n    file.write(data.getvalue())",
        reads=False,
    ),
    _torch(
        "torch.save, the old format",
        "torch.save(weights, 'out.pt', _use_new_zipfile_serialization=False)\ntorch.load('out.pt')",
    ),
    _torch(
        "torch.save, then os.replace",
        "import os\ntorch.save(weights, 'new.pt')\nos.replace('new.pt', 'out.pt')",
        reads=False,
    ),
    target(
        "torch.jit.save and load",
        """
        import warnings
        import torch

        warnings.simplefilter("ignore")
        module = torch.jit.script(torch.nn.Linear(2, 2))
        torch.jit.save(module, "function.pt")
        module.save("method.pt")
        torch.jit.load("function.pt")
        """,
        ("function.pt",),
        ("function.pt", "method.pt"),
        needs=_TORCH,
    ),
    target(
        "torch.export.save and load",
        """
        import torch

        program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
        torch.export.save(program, "out.pt2")
        torch.export.load("out.pt2")
        """,
        ("out.pt2",),
        ("out.pt2",),
        needs=_TORCH,
    ),
    target(
        "torch.from_file",
        """
        import torch

        torch.from_file("in.bin", size=4, dtype=torch.uint8).sum()
        """,
        ("in.bin",),
        files={"in.bin": b"\1\2\3\4"},
        needs=_TORCH,
    ),
    target(
        "torch.from_file, shared",
        """
        import torch

        torch.from_file("out.bin", shared=True, size=4, dtype=torch.uint8).fill_(1)
        """,
        writes=("out.bin",),
        touches=("out.bin",),
        needs=_TORCH,
    ),
    target(
        "torch.UntypedStorage.from_file",
        """
        import torch

        torch.UntypedStorage.from_file("in.bin", False, 4).tolist()
        """,
        ("in.bin",),
        files={"in.bin": b"\1\2\3\4"},
        needs=_TORCH,
    ),
    target(
        "torch.distributed.checkpoint",
        """
        import warnings
        import torch
        import torch.distributed.checkpoint as checkpoint

        warnings.simplefilter("ignore")
        state = {"a": torch.zeros(4)}
        checkpoint.save(state, checkpoint_id="saved")
        checkpoint.load(state, checkpoint_id="saved")
        """,
        ("saved/.metadata", "saved/__0_0.distcp"),
        ("saved/.metadata", "saved/__0_0.distcp"),
        touches=("saved",),
        needs=_TORCH,
    ),
    *(_loader(how, persistent) for how in ("fork", "spawn") for persistent in (False, True)),
    _tensors(
        "safetensors.torch",
        """
        import torch
        from safetensors.torch import load_file, save_file

        save_file({"a": torch.zeros(4)}, "out.safetensors")
        load_file("out.safetensors")
        """,
    ),
    _tensors(
        "safetensors.torch, save_model and load_model",
        """
        import torch
        from safetensors.torch import load_model, save_model

        module = torch.nn.Linear(2, 2)
        save_model(module, "out.safetensors")
        load_model(module, "out.safetensors")
        """,
    ),
    _tensors(
        "safetensors.numpy",
        """
        import numpy
        from safetensors.numpy import load_file, save_file

        save_file({"a": numpy.zeros(4)}, "out.safetensors")
        load_file("out.safetensors")
        """,
        ("numpy", "safetensors"),
    ),
    _tensors(
        "safetensors.safe_open",
        """
        import numpy
        from safetensors import safe_open
        from safetensors.numpy import save_file

        save_file({"a": numpy.zeros(4)}, "out.safetensors")
        with safe_open("out.safetensors", framework="numpy") as file:
            file.get_tensor("a")
        """,
        ("numpy", "safetensors"),
    ),
    target(
        "h5py",
        """
        import h5py

        with h5py.File("out.h5", "w") as file:
            file["a"] = [1, 2]
        with h5py.File("out.h5", "r") as file:
            file["a"][:]
        """,
        ("out.h5",),
        ("out.h5",),
        needs=("h5py",),
    ),
    target(
        "h5py, r+",
        """
        import h5py

        with h5py.File("both.h5", "r+") as file:
            file["a"][:] += 1
        """,
        ("both.h5",),
        ("both.h5",),
        build=("\"$PYTHON\" -c \"import h5py; h5py.File('both.h5', 'w')['a'] = [1, 2]\"",),
        needs=("h5py",),
    ),
    target(
        "h5py, a link to another file",
        """
        import h5py

        with h5py.File("out.h5", "w") as file:
            file["a"] = h5py.ExternalLink("inner.h5", "a")
            file["a"][:]
        """,
        ("inner.h5",),
        ("out.h5",),
        build=("\"$PYTHON\" -c \"import h5py; h5py.File('inner.h5', 'w')['a'] = [1, 2]\"",),
        needs=("h5py",),
    ),
    _keras(
        "keras, save and load_model",
        "model.save('out.keras')\nkeras.models.load_model('out.keras')",
        "out.keras",
    ),
    _keras(
        "keras, save and load_model, the old format",
        "model.save('out.h5')\nkeras.models.load_model('out.h5', compile=False)",
        "out.h5",
    ),
    _keras(
        "keras, save and load_model, a folder",
        "model.save('out', zipped=False)\nkeras.models.load_model('out')",
        "out/config.json",
        "out/model.weights.h5",
        only_written=("out/metadata.json",),
    ),
    _keras(
        "keras, save_weights and load_weights",
        "model.save_weights('out.weights.h5')\nmodel.load_weights('out.weights.h5')",
        "out.weights.h5",
    ),
    _keras(
        "keras, save_weights and load_weights, in shards",
        "model.save_weights('out.weights.json', max_shard_size=3e-8)\nmodel.load_weights('out.weights.json')",
        *(f"out{end}" for end in (".weights.json", "_00000.weights.h5", "_00001.weights.h5")),
    ),
    _keras(
        "keras, ModelCheckpoint",
        "kept = keras.callbacks.ModelCheckpoint('epoch-{epoch}.keras')\n"
        "model.fit(keras.ops.ones((8, 4)), keras.ops.ones((8, 2)), epochs=2, callbacks=[kept])\n"
        "for epoch in (1, 2):\n    keras.models.load_model(f'epoch-{epoch}.keras')",
        "epoch-1.keras",
        "epoch-2.keras",
    ),
    _keras(
        "keras, export and torch.export.load",
        "import torch\n\nmodel.export('out.pt2', format='torch')\ntorch.export.load('out.pt2')",
        "out.pt2",
    ),
    target(
        "joblib",
        """
        import joblib, numpy

        joblib.dump({"a": numpy.zeros(4)}, "out.joblib")
        joblib.load("out.joblib")
        """,
        ("out.joblib",),
        ("out.joblib",),
        needs=("joblib", "numpy"),
    ),
    target(
        "joblib, parallel",
        """
        import joblib
        from pathlib import Path

        if __name__ == "__main__":
            joblib.Parallel(2)(joblib.delayed(Path(name).read_text)() for name in ["given.txt"] * 4)
        """,
        (GIVEN,),
        needs=("joblib",),
    ),
)
