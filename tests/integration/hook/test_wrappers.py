"""Libraries' functions that are followed: they do what they did, and it is noted what they saved and loaded.

safetensors and h5py are not installed for the tests.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.hook.conftest import Traced
from tests.testbed import images, packages
from tests.testbed.engine import CACHE


@pytest.fixture(scope="session")
def torch_packages() -> Path:
    """A folder with torch and what it needs, made once."""
    folder = CACHE / f"torch-{images.TORCH}-packages"
    with (CACHE / "torch-packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            new = CACHE / "torch-packages.new"
            done = packages.pip("install", "--quiet", f"--target={new}", str(images.torch_wheel()))
            assert done.returncode == 0, done.stderr
            new.rename(folder)
    return folder


def said(traced: Traced, kinds: str) -> list[tuple[str, ...]]:
    """The records of these kinds, with paths relative to the checkout."""
    root = str(traced.code) + "/"
    return [(r.kind, *(field.removeprefix(root) for field in r.fields)) for r in traced.records(kinds)]


def test_what_numpy_saves_and_loads_is_noted_however_it_is_named(traced: Traced) -> None:
    script = (
        "import io, pathlib, tempfile, numpy as np\n"
        "a = np.arange(4)\n"
        "np.save('a', a); np.save(file='b.npy', arr=a); np.save(pathlib.Path('c'), arr=a)\n"
        "with open('d.npy', 'wb') as file: np.save(file, a)\n"
        "np.save(io.BytesIO(), a)\n"
        "np.savez('e', x=a, step=np.int64(7)); np.savez_compressed(file='f.npz', epoch=3, arr_1=a)\n"
        "with tempfile.NamedTemporaryFile(dir='.', suffix='.npz') as file: np.savez(file, a)\n"
        "np.load('a.npy'); np.load(file=pathlib.Path('b.npy'), mmap_mode='r'); np.load('e.npz')['x']\n"
        "with open('d.npy', 'rb') as file: np.load(file)\n"
        "class Odd(io.BytesIO):\n    @property\n    def name(self): raise RuntimeError('never ask')\n"
        "odd = Odd(); np.save(odd, a); odd.seek(0); np.load(odd)\n"
        "print(np.load('f.npz')['arr_1'])\n"
    )
    traced.alike(script)
    found = said(traced, "SL")
    assert [words for words in found if not words[-1].startswith("tmp")] == [
        *(("S", "numpy.save", "", name) for name in ("a.npy", "b.npy", "c.npy", "d.npy")),
        ("S", "numpy.savez", "7", "e.npz"),
        ("S", "numpy.savez", "3", "f.npz"),
        *(("L", "numpy.load", name) for name in ("a.npy", "b.npy", "e.npz", "d.npy", "f.npz")),
    ]
    assert len(found) == 12


def test_a_save_that_fails_raises_what_it_raised_and_is_not_noted_as_one(traced: Traced) -> None:
    script = (
        "import joblib, numpy as np\n"
        "for call in (\n"
        "    lambda: np.save('/nonexistent/x', 1), lambda: np.savez('a', file=1), lambda: np.save(),\n"
        "    lambda: np.load('nowhere.npy'), lambda: joblib.dump(1, '/nonexistent/b'), lambda: joblib.load('c'),\n"
        "    lambda: joblib.dump(1, 5), lambda: np.save('d', np.array([int, {}]), allow_pickle=False),\n"
        "):\n"
        "    try: call(); print('none')\n"
        "    except Exception as error: print(type(error), error)\n"
    )
    traced.alike(script)
    assert said(traced, "SL") == []


def test_signatures_names_and_references_are_as_ever(traced: Traced) -> None:
    script = (
        "import inspect, pickle, joblib, numpy as np\n"
        "from numpy.lib import npyio\n"
        "for f in (np.save, np.savez, np.savez_compressed, np.load, joblib.dump, joblib.load):\n"
        "    print(f.__module__, f.__qualname__, inspect.signature(f), len(f.__doc__), type(f))\n"
        "    print(pickle.loads(pickle.dumps(f)) is f, len(inspect.getsource(f)))\n"
        "print(np.__loader__.__dict__.keys(), np.lib._npyio_impl.__loader__.__dict__.keys())\n"
    )
    traced.alike(script)


def test_a_type_that_overrides_numpys_functions_is_given_the_function_that_it_knows(traced: Traced) -> None:
    script = (
        "import numpy as np\n"
        "class Mine:\n"
        "    def __array_function__(self, func, types, args, kwargs): return {np.save: 'saved'}[func]\n"
        "print(np.save('x', Mine()))\n"
    )
    assert traced.output(script) == "saved\n"
    assert said(traced, "S") == []


def test_a_warning_names_the_line_of_the_caller(traced: Traced) -> None:
    library = "import warnings\ndef load(filename): warnings.warn('old', stacklevel=2)\ndump = None\n"
    traced.write("joblib/numpy_pickle.py", library)
    traced.write("joblib/__init__.py", "")
    traced.write("x", "")
    traced.write("y", "")
    done = traced.alike("from joblib.numpy_pickle import load\nload('x')\nload('y')\n")
    assert done.stderr.count("main.py:2: UserWarning: old") == 1
    assert done.stderr.count("main.py:3: UserWarning: old") == 1
    assert said(traced, "L") == [("L", "joblib.load", "x"), ("L", "joblib.load", "y")]


def test_an_error_inside_a_library_is_shown_as_ever(traced: Traced) -> None:
    traced.write("h5py/__init__.py", "")
    traced.write("h5py/_hl/__init__.py", "")
    traced.write("h5py/_hl/files.py", "import sys\nraise ValueError('broken')\n")
    assert "broken" in traced.alike("import h5py._hl.files\n").stderr
    traced.write("h5py/_hl/files.py", "import nowhere\n")
    traced.alike("import h5py._hl.files\n")


def test_a_library_that_is_no_longer_what_we_know_works_and_it_is_said(traced: Traced) -> None:
    traced.write("safetensors.py", "x = 5\n")
    assert traced.output("import safetensors\nprint(safetensors.x)\n") == "5\n"
    ((_, what),) = said(traced, "E")
    assert what == "safetensors: its functions are not followed: AttributeError"


def test_a_library_that_is_loaded_late_is_followed_when_it_is(traced: Traced) -> None:
    script = (
        "import importlib.util as u, sys\n"
        "spec = u.find_spec('joblib')\n"
        "spec.loader = u.LazyLoader(spec.loader)\n"
        "module = sys.modules['joblib'] = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "module.dump({'step': 12}, 'x.joblib')\n"
    )
    traced.output(script)
    assert [words[2] for words in said(traced, "S")] == ["12"]


def test_what_loads_a_file_is_said_before_it_has_for_it_may_take_minutes(traced: Traced) -> None:
    traced.write("joblib/__init__.py", "")
    traced.write("joblib/numpy_pickle.py", "import os\ndef load(filename): os._exit(0)\n")
    traced.write("a", "")
    for name in ("none", "a"):
        traced.output(f"import joblib.numpy_pickle as n\nn.load({name!r})\n")
    assert said(traced, "L") == [("L", "joblib.load", "a")]


def test_a_library_that_is_loaded_again_is_followed_again(traced: Traced) -> None:
    traced.write("joblib/__init__.py", "")
    traced.write("joblib/numpy_pickle.py", "def load(filename): pass\n")
    traced.write("a", "")
    traced.write("b", "")
    script = (
        "import importlib, sys, joblib.numpy_pickle as n\n"
        "n.load('a')\ndel sys.modules['mllaunch_hook']\nimportlib.reload(n)\nn.load('b')\n"
    )
    traced.output(script)
    assert [words[2] for words in said(traced, "L")] == ["a", "b"]


def test_the_step_is_told_only_where_it_is_a_plain_number(traced: Traced) -> None:
    script = (
        "import joblib, numpy as np\n"
        "class Own(dict):\n    def get(self, *a): raise RuntimeError\n"
        "for value in ({'step': 3}, {'global_step': 4}, {'step': 'x', 'epoch': 5}, {'step': np.int32(6)},\n"
        "              {'step': True}, {'step': 10 ** 5000}, {'step': np.float64('nan')}, Own(step=8), [1]):\n"
        "    joblib.dump(value, 'x')\n"
    )
    traced.output(script)
    assert [words[2] for words in said(traced, "S")] == ["3", "4", "5", "6", "", "", "", "", ""]


@pytest.mark.real("torch")
def test_what_torch_saves_and_loads_is_noted_and_is_what_it_was(traced: Traced, torch_packages: Path) -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the wheel is for Python 3.11")
    traced.variables["PYTHONPATH"] = str(torch_packages)
    script = (
        "import inspect, io, pathlib, pickle, warnings, torch\n"
        "warnings.simplefilter('ignore')\n"
        "weights = {'step': 40, 'w': torch.arange(4.0)}\n"
        "torch.save(weights, 'a.pt'); torch.save(obj=weights, f=pathlib.Path('b.pt'))\n"
        "with open('c.pt', 'wb') as file: torch.save({'w': weights['w']}, file)\n"
        "buffer = io.BytesIO(); torch.save(weights, buffer); buffer.seek(0)\n"
        "for f in ('/nonexistent/x.pt', 5):\n"
        "    try: torch.save(weights, f)\n"
        "    except Exception as error: print(type(error), error)\n"
        "try: torch.save(lambda: 0, 'd.pt')\n"
        "except Exception as error: print(type(error))\n"
        "for f in ('a.pt', pathlib.Path('b.pt'), buffer): print(torch.load(f, weights_only=True))\n"
        "print(torch.load(f='a.pt', mmap=True, map_location='cpu')['w'])\n"
        "module = torch.jit.script(torch.nn.Linear(1, 1)); module.save('e.pt'); torch.jit.save(module, 'f.pt')\n"
        "torch.jit.load('e.pt')\n"
        "for f in (torch.save, torch.load, torch.jit.load, torch.jit.save):\n"
        "    print(f.__module__, f.__qualname__, inspect.signature(f), pickle.loads(pickle.dumps(f)) is f)\n"
        "print(torch.from_file('a.pt', size=4, dtype=torch.uint8))\n"
        "import torch.distributed.checkpoint as dcp\n"
        "dcp.save({'w': weights['w']}, checkpoint_id='dcp')\n"
        "dcp.load({'w': weights['w']}, checkpoint_id='dcp')\n"
        "@torch.compile(backend='eager')\n"
        "def f(x):\n    y = x + 1\n    torch.save(y, 'g.pt')\n    return y * 2\n"
        "print(f(weights['w']))\n"
    )
    traced.alike(script)
    # The archive names its file; equal calls give equal bytes, with the hook and without.
    with_hook = [(traced.code / name).read_bytes() for name in ("a.pt", "b.pt", "c.pt")]
    traced.run("main.py", hook=False)
    assert with_hook == [(traced.code / name).read_bytes() for name in ("a.pt", "b.pt", "c.pt")]
    found = said(traced, "SL")
    for expected in (
        *(("S", "torch.save", step, name) for step, name in (("40", "a.pt"), ("40", "b.pt"), ("", "c.pt"))),
        *(("S", "torch.jit.save", "", name) for name in ("e.pt", "f.pt")),
        ("S", "torch.save", "", "g.pt"),
        ("L", "torch.load", "a.pt"),
        ("L", "torch.load", "b.pt"),
        ("L", "torch.jit.load", "e.pt"),
        ("L", "torch.from_file", "a.pt"),
        ("S", "torch.distributed.checkpoint.save", "", "dcp"),
        ("L", "torch.distributed.checkpoint.load", "dcp"),
    ):
        assert expected in found
    assert not [words for words in found if words[-1] in ("d.pt", "/nonexistent/x.pt")]


@pytest.mark.real("torch")
def test_torch_imports_in_silence_and_its_loaders_workers_are_followed(
    traced: Traced, torch_packages: Path
) -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the wheel is for Python 3.11")
    traced.variables["PYTHONPATH"] = str(torch_packages)
    traced.write("data.bin", "x")
    script = (
        "import torch.utils.data as d\n"
        "class Data(d.Dataset):\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, n): return len(open('data.bin').read())\n"
        "if __name__ == '__main__':\n"
        "    for method in ('fork', 'spawn'):\n"
        "        loader = d.DataLoader(Data(), num_workers=2, multiprocessing_context=method)\n"
        "        print([int(x) for x in loader])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import torch"], env=traced.environment(), capture_output=True, text=True
    )
    traced.write("main.py", script)
    assert traced.run("main.py").stdout == "[1, 1, 1, 1]\n[1, 1, 1, 1]\n"
    without = subprocess.run(
        [sys.executable, "-c", "import torch"], env=traced.environment(False), capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (without.stdout, without.stderr)
    assert len({r.process for r in traced.records("R") if r.fields[0].endswith("/data.bin")}) == 4
