"""Functions of libraries that read or write weights, followed: they know the step, and some open files in C++.

A followed function does what it did, to the byte; what it returns and raises is its own.
"""

import functools
import io

import mllaunch_hook as hook

_STEPS = ("step", "global_step", "iteration", "iter", "num_updates", "epoch")


_UNNOTICED = (
    hook._HERE + "/importlib_bootstrap"
)  # frames of files so called do not count where a warning comes from


def wrap(module):
    """Follow the functions of one module that has just been executed."""
    for name, read, write in _FUNCTIONS.get(module.__name__, ()):
        if not _follow_dispatched(module, name, read, write):
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
    "torch.export": (("save", None, "torch.export.save"), ("load", "torch.export.load", None)),
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
    "torch.export.save": (1, "f", None, None),
    "torch.export.load": (0, "f", None, None),
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
    if function is not None and not hasattr(function, "__mllaunch__"):
        setattr(owner, name, _following(function, read, write))


def _follow_dispatched(module, name, read, write):
    """Likewise for a function of numpy's that types may override: they are given the very function they know."""
    implementation = getattr(getattr(module, name, None), "_implementation", None)
    dispatcher = getattr(module, "_%s_dispatcher" % name, None)
    dispatch = getattr(module, "array_function_dispatch", None)
    if implementation is None or dispatcher is None or dispatch is None:
        return False
    try:
        followed = dispatch(dispatcher, verify=False)(_following(implementation, read, write))
        followed.__dict__.pop("__signature__", None)  # where it is not verified, it is the dispatcher's
    except Exception:  # another numpy
        return False
    setattr(module, name, followed)
    return True


def _following(function, read, write):
    @functools.wraps(function)
    def followed(*args, **kwargs):
        path = _quietly(_path_of, read or write, args, kwargs)
        if path is not None and (write or _is_shared(read, args, kwargs)):
            _quietly(hook.wrote, path)
        if path is not None and read:
            _quietly(_loading, read, path)
        result = function(*args, **kwargs)
        if path is not None and write:
            _quietly(_saved, write, path, args, kwargs)
        return result

    followed.__code__ = followed.__code__.replace(co_filename=_UNNOTICED)
    followed.__mllaunch__ = True
    return followed


def _is_shared(by, args, kwargs):
    """Whether torch.from_file makes a tensor that writes through to the file."""
    return by == "torch.from_file" and bool(_argument(args, kwargs, 1, "shared"))


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
    given = _argument(args, kwargs, position, keyword)
    if given is None and by.startswith("torch.distributed"):
        storage = kwargs.get("storage_writer") or kwargs.get("storage_reader")
        given = vars(storage).get("path") if storage is not None else None
    name = hook._name(given)
    if name is None:
        return hook._path(_name_of(given))
    if by in _SUFFIXES and not name.endswith(_SUFFIXES[by]):
        name += _SUFFIXES[by]
    return hook._path(name)


_SUFFIXES = {"numpy.save": ".npy", "numpy.savez": ".npz"}  # what is added to a name that has none


def _argument(args, kwargs, position, keyword):
    found = kwargs.get(keyword)
    if found is None and position is not None and position < len(args):
        found = args[position]
    return found


def _name_of(file):
    """What a file is called that Python opened. No other object is asked: its answer would be code of the user's."""
    if type(file).__module__ == "tempfile":
        file = vars(file).get("file")
    if type(file) in (io.BufferedWriter, io.BufferedReader, io.BufferedRandom):
        file = file.raw
    return file.name if type(file) is io.FileIO else None


def _saved(by, path, args, kwargs):
    _, _, position, keyword = _PATH_ARGUMENTS[by]
    if by == "numpy.savez":
        step = _step(kwargs)
    else:
        step = None if keyword is None else _step(_argument(args, kwargs, position, keyword))
    hook.record(b"S", by.encode(), b"" if step is None else b"%d" % step, hook._text(path))


def _loading(by, path):
    """Said before it is done, which may take minutes: until it is said, the file may be told as any other."""
    if hook._exists(path):
        hook.record(b"L", by.encode(), hook._text(path))


def _step(value):
    """The step that a checkpoint says it is from, or None. Never asks a GPU, and calls no code of the user's."""
    if type(value) is not dict:
        return None
    for name in _STEPS:
        found = value.get(name)
        if type(found) is int or (type(found).__module__ == "numpy" and getattr(found, "shape", None) == ()):
            try:
                number = int(found)
            except (TypeError, ValueError, OverflowError):
                continue
            if abs(number) < 1 << 63:
                return number
    return None


def _follow_file_class(file_class):
    """h5py.File: it opens in C, when an object is made."""
    initialize = file_class.__init__
    if hasattr(initialize, "__mllaunch__"):
        return

    @functools.wraps(initialize)
    def followed(self, *args, **kwargs):
        _quietly(_opening_h5, args, kwargs)
        initialize(self, *args, **kwargs)

    followed.__code__ = followed.__code__.replace(co_filename=_UNNOTICED)
    followed.__mllaunch__ = True
    file_class.__init__ = followed


def _opening_h5(args, kwargs):
    path = hook._path(_argument(args, kwargs, 0, "name"))
    if path is None:
        return
    mode = _argument(args, kwargs, 1, "mode") or "r"
    if mode in ("r", "r+", "a") and hook._exists(path):
        hook._see(path)
    if mode != "r":
        hook.wrote(path)


def _followed_class(real, by):
    """A class whose making of objects is followed, and which is the real one in every other respect."""

    class Meta(type):
        def __call__(cls, *args, **kwargs):
            made = real(*args, **kwargs)
            _quietly(_opened_by, by, _argument(args, kwargs, 0, "filename"))
            return made

        def __instancecheck__(cls, instance):
            return isinstance(instance, real)

        def __subclasscheck__(cls, subclass):
            return issubclass(subclass, real)

        def __getattr__(cls, name):
            return getattr(real, name)

        def __repr__(cls):
            return repr(real)

        @property
        def __signature__(cls):
            from inspect import signature

            return signature(real)

    Meta.__call__.__code__ = Meta.__call__.__code__.replace(co_filename=_UNNOTICED)
    body = {"__module__": real.__module__, "__qualname__": real.__qualname__, "__doc__": real.__doc__}
    return Meta(real.__name__, (), body)


def _opened_by(by, given):
    path = hook._path(given)
    if path is not None:
        hook._see(path)
        _loading(by, path)
