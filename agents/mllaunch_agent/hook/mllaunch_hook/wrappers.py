"""Functions of libraries that read or write weights, followed: they know the step, and some open files in C++.

A followed function does what it did, to the byte; what it returns and raises is its own.
"""

import functools
import os

import mllaunch_hook as hook

_STEPS = ("step", "global_step", "iteration", "iter", "num_updates", "epoch")


def wrap(module):
    """Follow the functions of one module that has just been executed."""
    for name, read, write in _FUNCTIONS.get(module.__name__, ()):
        _follow(module, name, read, write)
    if module.__name__ == "torch":
        _follow(module, "from_file", "torch.from_file", None)
    elif module.__name__ == "torch.jit._script":
        _follow(module.RecursiveScriptModule, "save", None, "torch.jit.save")
    elif module.__name__ == "safetensors":
        module.safe_open = _followed_class(module.safe_open, "safetensors.safe_open")
    elif module.__name__ == "h5py._hl.files":
        _follow_file_class(module.File)


# module -> (function, what a load is called, what a save is called). The first argument is what is saved, or the path.
_SAVING_NUMPY = (
    ("save", None, "numpy.save"),
    ("savez", None, "numpy.savez"),
    ("savez_compressed", None, "numpy.savez"),
    ("load", "numpy.load", None),
)
_FUNCTIONS = {
    "torch.serialization": (("save", None, "torch.save"), ("load", "torch.load", None)),
    "torch.jit._serialization": (("load", "torch.jit.load", None),),
    "torch.distributed.checkpoint.state_dict_saver": (
        ("save", None, "torch.distributed.checkpoint.save"),
        ("async_save", None, "torch.distributed.checkpoint.async_save"),
    ),
    "torch.distributed.checkpoint.state_dict_loader": (("load", "torch.distributed.checkpoint.load", None),),
    "safetensors": (("serialize_file", None, "safetensors.save_file"),),
    "numpy.lib.npyio": _SAVING_NUMPY,
    "numpy.lib._npyio_impl": _SAVING_NUMPY,
    "joblib.numpy_pickle": (("dump", None, "joblib.dump"), ("load", "joblib.load", None)),
    "keras.src.saving.saving_api": (
        ("save_model", None, "keras.save"),
        ("save_weights", None, "keras.save_weights"),
        ("load_model", "keras.load", None),
        ("load_weights", "keras.load_weights", None),
    ),
}
# Where the path is not the first argument of a load, or the second of a save.
_PATH_ARGUMENTS = {
    "numpy.save": (0, "file", 1, "arr"),
    "numpy.savez": (0, "file", None, None),
    "numpy.load": (0, "file", None, None),
    "torch.save": (1, "f", 0, "obj"),
    "torch.load": (0, "f", None, None),
    "torch.jit.save": (1, "f", None, None),
    "torch.jit.load": (0, "f", None, None),
    "torch.from_file": (0, "filename", None, None),
    "torch.distributed.checkpoint.save": (None, "checkpoint_id", 0, "state_dict"),
    "torch.distributed.checkpoint.async_save": (None, "checkpoint_id", 0, "state_dict"),
    "torch.distributed.checkpoint.load": (None, "checkpoint_id", 0, "state_dict"),
    "safetensors.save_file": (1, "filename", 0, "tensor_dict"),
    "joblib.dump": (1, "filename", 0, "value"),
    "joblib.load": (0, "filename", None, None),
    "keras.save": (1, "filepath", None, None),
    "keras.save_weights": (1, "filepath", None, None),
    "keras.load": (0, "filepath", None, None),
    "keras.load_weights": (1, "filepath", None, None),
}


def _follow(owner, name, read, write):
    """Replace a function by one that does the same and says so."""
    function = getattr(owner, name, None)
    if function is None or hasattr(function, "__mllaunch__"):
        return

    @functools.wraps(function)
    def followed(*args, **kwargs):
        path = _quietly(_path_of, read or write, args, kwargs)
        if path is not None and write:
            _quietly(hook.wrote, path)
        result = function(*args, **kwargs)
        if path is not None and write:
            _quietly(_saved, write, path, args, kwargs)
        elif path is not None:
            _quietly(_loaded, read, path)
        return result

    followed.__mllaunch__ = True
    setattr(owner, name, followed)


def _quietly(function, *args):
    try:
        return function(*args)
    except Exception as error:
        if not hook._is_own(error):
            raise
        return None


def _path_of(by, args, kwargs):
    """The absolute path that a call is about; None for a buffer or file without a name, or one of no interest."""
    position, keyword, _, _ = _PATH_ARGUMENTS[by]
    given = kwargs.get(keyword)
    if given is None and position is not None and position < len(args):
        given = args[position]
    if given is None and by.startswith("torch.distributed"):
        storage = kwargs.get("storage_writer") or kwargs.get("storage_reader")
        given = getattr(storage, "path", None)
    if given is not None and not isinstance(given, (str, bytes, os.PathLike)):
        given = getattr(given, "name", None)
    if given is None or isinstance(given, int):
        return None
    path = hook._path(given)
    if by in {"numpy.save", "numpy.savez"}:
        suffix = ".npy" if by == "numpy.save" else ".npz"
        is_name = isinstance(args[0] if args else kwargs.get("file"), (str, os.PathLike))
        if path is not None and is_name and not path.endswith(suffix):
            path += suffix
    return path


def _saved(by, path, args, kwargs):
    step = None
    if by == "numpy.savez":
        step = _step(kwargs)
    else:
        _, _, position, keyword = _PATH_ARGUMENTS[by]
        if keyword is not None:
            value = kwargs.get(keyword)
            if value is None and position < len(args):
                value = args[position]
            step = _step(value)
    hook.record(b"S", by.encode(), b"" if step is None else b"%d" % step, hook._text(path))


def _loaded(by, path):
    hook.record(b"L", by.encode(), hook._text(path))


def _step(value):
    """The step that a checkpoint says it is from, or None. Never asks a GPU, and calls no code of the user's."""
    if type(value) is not dict:
        return None
    for name in _STEPS:
        found = value.get(name)
        if type(found) is int or (type(found).__module__ == "numpy" and getattr(found, "shape", None) == ()):
            try:
                return int(found)
            except (TypeError, ValueError):
                continue
    return None


def _follow_file_class(file_class):
    """h5py.File: it opens in C, when an object is made."""
    initialize = file_class.__init__
    if hasattr(initialize, "__mllaunch__"):
        return

    @functools.wraps(initialize)
    def followed(self, name, mode="r", *args, **kwargs):
        initialize(self, name, mode, *args, **kwargs)
        _quietly(_opened_h5, name, mode)

    followed.__mllaunch__ = True
    file_class.__init__ = followed


def _opened_h5(name, mode):
    if isinstance(name, (str, bytes, os.PathLike)):
        path = hook._path(name)
        if path is not None:
            if mode != "r":
                hook.wrote(path)
            if mode in ("r", "r+", "a"):
                hook._see(path)


def _followed_class(real, by):
    """A class whose making of objects is followed, and which is the real one in every other respect."""

    class Meta(type):
        def __call__(cls, *args, **kwargs):
            made = real(*args, **kwargs)
            path = args[0] if args else kwargs.get("filename")
            _quietly(_opened_by, by, path)
            return made

        def __instancecheck__(cls, instance):
            return isinstance(instance, real)

        def __subclasscheck__(cls, subclass):
            return issubclass(subclass, real)

        def __getattr__(cls, name):
            return getattr(real, name)

    body = {"__module__": real.__module__, "__qualname__": real.__qualname__, "__doc__": real.__doc__}
    return Meta(real.__name__, (), body)


def _opened_by(by, given):
    path = hook._path(given)
    if path is not None:
        hook._see(path)
        _loaded(by, path)
