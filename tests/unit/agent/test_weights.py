from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllaunch_agent import fingerprint, weights
from mllaunch_agent.weights import Weights

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
F4 = np.arange(12, dtype="<f4").reshape(3, 4)
I8 = np.array([5, -6], dtype="<i8")


def safetensors(
    arrays: dict[str, tuple[str, list[int], bytes]], metadata: Any = None, names: Iterable[str] = ()
) -> bytes:
    """``names``: the order of the bytes, where it isn't that of the arrays."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    body = b""
    for name in names or arrays:
        dtype, shape, data = arrays[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    return with_header(json.dumps(header).encode(), body)


def with_header(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


PLAIN = {"w": ("F32", [3, 4], F4.tobytes()), "b": ("I64", [2], I8.tobytes())}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def torch_zip(stem: str, storage: bytes = b"\1\2\3\4", **more: bytes) -> bytes:
    """As torch.save writes it: everything in a folder that is called after the file."""
    members = {
        "data.pkl": b"\x80\x02}q\x00.",
        ".format_version": b"1",
        ".storage_alignment": b"64",
        "byteorder": b"little",
        "data/0": storage,
        "version": b"3\n",
        ".data/serialization_id": stem.encode().ljust(40, b"0"),
        **more,
    }
    return zipped({f"{stem}/{name}": data for name, data in members.items()})


# As h5py 3.16 writes layers/dense/vars/0 (F4), and optimizer/vars/0 (the number 7, of 32 bits).
HDF5 = zlib.decompress(
    base64.b85decode(
        b"c-"
        b"rgqaB<`1lHy_j0S*oZ76t(ZWbhvfT(nX7F!=;1%?PDCp!5nRm^dR?P68?}2sIyFT}Y6tD@gT!Gyt<lfgM7lx^5JV6yV|N7yzOpVC"
        b"ex$pI|~&my=kTT2#!ykY7-enVVUaT7;H9El9MNk%1MWml4L-"
        b"fY3}30cNN=7ATF$mjG)ORFH>?DKLn0Fo@Sf<yjdx!17E?5Cb`&Ifa?g0BVE*nu{t1L2NYG0|^Hp0^$ZBUI4@gfcOCrGdKcsDG)0F"
        b"v4JDb{15fr3O3^MzXmsi<`~Tiqxm1H9yq~<sxBopuQ(Mczk5(<Z?K=g3nK#)Jl!R*pw)M1=@{lN6J=C&F;ISu>d1^gT;;$7XuxjZ"
        b"BCZ@T;2$jqM#}-ra^M0Ns=Bg7P%D7i<p3i*-DPl~=5O?LJPL4?1I#GpfB-ZG4+x_6CkT}T6#}E>z-"
        b"T#uSq|LbLse&h*8Zn<IZ(iZYW@r;e+S=a9FY=^3e2NnLJoknqtMeG52$+v?Z1iuLpd)o7t}0fkYr>8>kxpaSq_x+%L<AMAw-"
        b"&XclP&TM9N^u>X6&pFmQu^G)_jrC>RB!U=)mkQ7{Td!6+C7qhJ(_f}sX5=f6?M3z!)Mz-"
        b"$2y2Kf9oWPAYUyf$<uj0Mf61w$e{*couoWuedU5gNnZ0$EBhI)*($0j@FZIcRgl)Sk=2m40Q^AbcAQ;?nOQ&C&Ebntn0UZ;S@2I$"
        b"F=cd{IR;A3Yt90^-6^L1{Eh$N>O$Ma4+"
    )
)


def keras(
    date: str = "2026-01-01", h5: bytes = HDF5, config: bytes = b"{}", compression: int = zipfile.ZIP_STORED
) -> bytes:
    metadata = json.dumps({"keras_version": "3.0", "date_saved": date}).encode()
    return zipped({"metadata.json": metadata, "config.json": config, "model.weights.h5": h5}, compression)


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.fixture
def put(tmp_path: Path) -> Any:
    def write(data: bytes, name: str = "file") -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


def digest(put: Any, data: bytes) -> str:
    found = weights.read(put(data))
    assert found is not None
    assert found.digest is not None
    return found.digest


# ---- formats


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (torch_zip("model"), "torch"),
        (torch_zip("model", **{"code/__torch__.py": b"class M"}), "torchscript"),
        (torch_zip("model", **{"constants.pkl": b"\x80\x02)."}), "torchscript"),
        (LEGACY + b"\x80\x02M\xe9\x03.", "torch-legacy"),
        (safetensors(PLAIN), "safetensors"),
        (safetensors({}), "safetensors"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "hdf5"),
        (npz(w=F4), "npz"),
        (npy(F4), "npy"),
        (b"GGUF\3\0\0\0" + bytes(16), "gguf"),
        (keras(), "keras"),
        (pickle.dumps({"w": [1.0]}, 2), "pickle"),
        (pickle.dumps({"w": [1.0]}, 5), "pickle"),
        (zipped({"code/main.py": b"", "data.pkl": b""}), None),
        (zipped({"a/data.pkl": b"", "b/c": b""}), None),
        (zipped({"w.npy": npy(F4), "readme": b""}), None),
        (zipped({}), None),
        (pickle.dumps({"w": [1.0]}, 0), None),
        (b"\x80\x04 not a pickle", None),
        (b"", None),
        (b"P", None),
        (b"PK\3\4", None),
        (b"{}", None),
        (b"a text, of which there are many", None),
    ],
)
def test_a_format_is_told_by_content_alone(put: Any, data: bytes, name: str | None) -> None:
    path = put(data, "no suffix")
    assert weights.format_of(path) == weights.format_of(os.fsencode(path)) == name
    found = weights.read(put(data, "model.pkl"))
    assert (found and found.format) == name


def test_the_formats_without_a_logical_digest_have_none(put: Any) -> None:
    assert weights.read(put(LEGACY)) == Weights("torch-legacy", None, None, None)
    assert weights.read(put(b"\x89HDF\r\n\x1a\n")) == Weights("hdf5", None, None, None)
    assert weights.read(put(b"GGUF")) == Weights("gguf", None, None, None)


def test_a_pickle_counts_only_where_its_name_looks_like_weights(put: Any) -> None:
    data = pickle.dumps([1])
    assert weights.read(put(data, "model.pkl")) == Weights("pickle", None, None, None)
    assert weights.read(put(data, "cache.dat")) is None


def test_onnx_is_told_by_name_and_first_byte(put: Any) -> None:
    assert weights.read(put(b"\x08\x07\x12\x07pytorch", "model.onnx")) == Weights("onnx", None, None, None)
    assert weights.read(put(b"\x08\x07\x12\x07pytorch", "model.bin")) is None
    assert weights.read(put(b"not a model", "model.onnx")) is None


def test_a_pipe_is_no_weights_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pt")
    assert weights.format_of(str(tmp_path / "model.pt")) is None
    assert weights.read(str(tmp_path / "model.pt")) is None


def test_only_what_cannot_be_opened_raises(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(OSError):
            weights.read(str(path))
        with pytest.raises(OSError):
            weights.format_of(str(path))


def test_a_pickle_inside_is_never_loaded(put: Any, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "loaded"),)

    evil = pickle.dumps(Evil())
    for data in (evil, torch_zip("m", **{"data.pkl": evil}), LEGACY + evil, npz(w=np.array([Evil()]))):
        assert weights.read(put(data, "model.pt")) is not None
    assert not (tmp_path / "loaded").exists()


# ---- digests


def framed(scheme: bytes, *fields: bytes) -> str:
    """The digest as the module's description says, written a second time."""
    return hashlib.sha256(
        scheme + b"\n" + b"".join(struct.pack("<Q", len(field)) + field for field in fields)
    ).hexdigest()


def test_the_digest_of_arrays_is_what_is_described(put: Any) -> None:
    expected = framed(b"tensors/1", b"b", b"i8", b"2", I8.tobytes(), b"w", b"f4", b"3,4", F4.tobytes())
    assert weights.read(put(safetensors(PLAIN))) == Weights("safetensors", expected, 2, None)
    assert weights.read(put(npz(w=F4, b=I8))) == Weights("npz", expected, 2, None)
    assert weights.read(put(npy(F4))) == Weights(
        "npy", framed(b"tensors/1", b"", b"f4", b"3,4", F4.tobytes()), 1, None
    )


def test_the_digest_of_members_is_what_is_described(put: Any) -> None:
    expected = framed(b"members/1", b"data.pkl", b"\x80\x02}q\x00.", b"data/0", b"\1\2\3\4")
    assert weights.read(put(torch_zip("model"))) == Weights("torch", expected, None, None)


def test_equal_torch_weights_under_another_name_have_an_equal_digest(put: Any) -> None:
    assert torch_zip("model") != torch_zip("step_100")
    assert digest(put, torch_zip("model")) == digest(put, torch_zip("step_100"))
    assert digest(put, torch_zip("model")) != digest(put, torch_zip("model", b"\1\2\3\5"))


def test_the_paths_of_source_files_in_torchscript_do_not_count(put: Any) -> None:
    def script(debug: bytes, code: bytes = b"class M") -> bytes:
        return torch_zip("m", **{"code/__torch__.py": code, "code/__torch__.py.debug_pkl": debug})

    assert digest(put, script(b"/home/ada/m.py")) == digest(put, script(b"/home/bob/m.py"))
    assert digest(put, script(b"")) != digest(put, script(b"", b"class N"))


def test_the_digest_and_the_step_of_keras_are_those_of_its_arrays(put: Any) -> None:
    names = (
        (b"layers/dense/vars/0", b"f4", b"3,4", F4.tobytes()),
        (b"optimizer/vars/0", b"i4", b"", b"\7\0\0\0"),
    )
    expected = framed(b"tensors/1", *names[0], *names[1])
    assert weights.read(put(HDF5)) == Weights("hdf5", expected, 2, 7)
    assert weights.read(put(keras())) == Weights("keras", expected, 2, 7)


def test_the_date_and_the_configuration_in_a_keras_file_do_not_count(put: Any) -> None:
    assert digest(put, keras()) == digest(put, keras("2027-02-02", config=b'{"a": 1}'))
    assert digest(put, keras()) != digest(put, keras(h5=HDF5.replace(F4.tobytes(), (F4 + 1).tobytes())))


def test_attributes_do_not_count(put: Any) -> None:
    renamed = HDF5.replace(b"name\0", b"game\0")
    assert renamed != HDF5
    assert digest(put, renamed) == digest(put, HDF5)


@pytest.mark.parametrize("size", range(8, len(HDF5), 997))
def test_hdf5_that_is_cut_off_or_unknown_has_no_digest(put: Any, size: int) -> None:
    assert weights.read(put(HDF5[:size])) == Weights("hdf5", None, None, None)
    assert weights.read(put(keras(h5=HDF5[:size]))) == Weights("keras", None, None, None)


def test_a_group_that_contains_itself_has_no_digest(put: Any) -> None:
    root = HDF5[64:72]
    entries = HDF5.index(b"SNOD") + 8
    circular = HDF5[: entries + 8] + root + HDF5[entries + 16 :]
    assert weights.read(put(circular)) == Weights("hdf5", None, None, None)


def test_a_compressed_keras_file_is_left_alone(put: Any) -> None:
    assert weights.read(put(keras(compression=zipfile.ZIP_DEFLATED))) == Weights("keras", None, None, None)


def test_the_order_in_the_file_and_the_metadata_do_not_count(put: Any) -> None:
    first = digest(put, safetensors(PLAIN))
    assert digest(put, safetensors(PLAIN, {"format": "pt"})) == first
    assert digest(put, safetensors(PLAIN, names=("b", "w"))) == first
    assert digest(put, npz(b=I8, w=F4)) == first


def test_compression_does_not_count(put: Any) -> None:
    out = io.BytesIO()
    np.savez_compressed(out, w=F4, b=I8)
    assert digest(put, out.getvalue()) == digest(put, npz(w=F4, b=I8))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(("F16", "<f2"), ("F32", "<f4"), ("F64", "<f8"), ("C64", "<c8"), ("BOOL", "?")),
        *(("I8", "i1"), ("I16", "<i2"), ("I32", "<i4"), ("I64", "<i8")),
        *(("U8", "u1"), ("U16", "<u2"), ("U32", "<u4"), ("U64", "<u8")),
    ],
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 2)])
def test_an_array_has_the_same_digest_in_both_formats(
    put: Any, name: str, dtype: str, shape: tuple[int, ...]
) -> None:
    array = np.ones(shape, dtype)
    tensor = {"größe/w": (name, list(shape), array.tobytes())}
    assert digest(put, safetensors(tensor)) == digest(put, npz(**{"größe/w": array}))


def test_whatever_makes_another_array_makes_another_digest(put: Any) -> None:
    others = [
        npz(w=F4),
        npz(v=F4),
        npz(w=F4.reshape(4, 3)),
        npz(w=F4.view("<i4")),
        npz(w=F4.astype(">f4")),
        npz(w=np.asfortranarray(F4)),
        npz(w=F4 + 1),
        npz(w=F4, b=I8),
        npz(w=F4.view("V4")),
        safetensors({"w": ("F8_E4M3", [48], F4.tobytes())}),
        safetensors({"w": ("F8_E5M2", [48], F4.tobytes())}),
        safetensors({"w": ("BF16", [24], F4.tobytes())}),
        safetensors({"w": ("F4", [96], F4.tobytes())}),
        safetensors({"w": ("F32000", [3, 4], F4.tobytes())}),
        npy(F4),
    ]
    assert len({digest(put, data) for data in others}) == len(others)


def test_a_fortran_vector_is_a_vector(put: Any) -> None:
    header = b"{'descr': '<i8', 'fortran_order': %s, 'shape': (2,), }\n"
    vectors = [
        zipped({"b.npy": b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + I8.tobytes()})
        for text in (header % b"True", header % b"False")
    ]
    assert {digest(put, data) for data in vectors} == {digest(put, npz(b=I8))}


@pytest.mark.parametrize("array", [np.array([None, {}]), np.zeros(2, [("a", "<f4"), ("b", "<i4")])])
def test_objects_and_records_have_no_digest(put: Any, array: Any) -> None:
    found = weights.read(put(npz(w=F4, other=array, step=np.array(7))))
    assert found == Weights("npz", None, 3, 7)


def test_a_long_header_is_left_alone(put: Any) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (), }" + b" " * (1 << 17)
    data = b"\x93NUMPY\2\0" + struct.pack("<I", len(header)) + header + bytes(4)
    assert weights.read(put(data)) == Weights("npy", None, 1, None)
    data = b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 31) + header + bytes(4)
    assert weights.read(put(data)) == Weights("npy", None, 1, None)


# ---- steps


@pytest.mark.parametrize(
    ("metadata", "step"),
    [
        ({"step": "70"}, 70),
        ({"epoch": "3", "global_step": "400"}, 400),
        ({"epoch": "3", "iteration": "9"}, 9),
        ({"epoch": "3", "step": "last"}, 3),
        ({"step": "-1"}, None),
        ({"step": "9" * 19}, None),
        ({"step": 70}, None),
        ({"format": "pt"}, None),
        ([], None),
        (None, None),
    ],
)
def test_safetensors_tells_its_step(put: Any, metadata: Any, step: int | None) -> None:
    found = weights.read(put(safetensors(PLAIN, metadata)))
    assert found is not None
    assert (found.step, found.tensors) == (step, 2)


@pytest.mark.parametrize(
    ("arrays", "step"),
    [
        ({"step": np.array(70)}, 70),
        ({"step": np.array([70], dtype=">u2")}, 70),
        ({"epoch": np.array(3), "global_step": np.array(400)}, 400),
        ({"step": np.array([1, 2]), "epoch": np.array([[3]])}, 3),
        ({"step": np.array(70.0)}, None),
        ({"step": np.array(-1)}, None),
        ({"step": np.array(2**64 - 1, dtype="u8")}, None),
        ({"step": np.array(None)}, None),
        ({"a/step": np.array(70)}, None),
    ],
)
def test_an_npz_tells_its_step(put: Any, arrays: dict[str, Any], step: int | None) -> None:
    found = weights.read(put(npz(w=F4, **arrays)))
    assert found is not None
    assert (found.step, found.tensors) == (step, 1 + len(arrays))


# ---- hostile files


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 1 << 60) + b'{"a":1}',
        struct.pack("<Q", (1 << 64) - 1) + b'{"a":1}',
        struct.pack("<Q", 100) + b'{"a":1}',
        with_header(b"{" * 100_000),
        with_header(b'{"a":' * 100_000),
        with_header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        with_header(b'{"a":' + b"1" * 1_000_000 + b"}"),
        with_header(b'{"a":1}'),
        with_header(b'{"a":{}}'),
        with_header(b"{\xff\xfe}"),
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1152921504606846976]}}', bytes(4)),
        with_header(b'{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}', bytes(4)),
        with_header(b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', bytes(4)),
        with_header(b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', bytes(4)),
        with_header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', bytes(4)),
        with_header(b'{"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}', bytes(4)),
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(5)),
        with_header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}', bytes(5)),
        with_header(
            json.dumps({"a": {"dtype": "U8", "shape": [1] * 65, "data_offsets": [0, 1]}}).encode(), b"a"
        ),
    ],
    ids=lambda data: repr(data[:60]),
)
def test_a_lying_header_makes_no_weights(put: Any, data: bytes) -> None:
    assert weights.read(put(data)) is None


def test_a_million_arrays_cannot_name_the_same_bytes(put: Any) -> None:
    entry = {"dtype": "U8", "shape": [1000], "data_offsets": [0, 1000]}
    header = json.dumps({str(number): entry for number in range(1000)}).encode()
    assert weights.read(put(with_header(header, bytes(1000)))) is None


def test_a_header_that_would_fill_the_memory_is_not_parsed(put: Any) -> None:
    path = put(with_header(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}"))
    tracemalloc.start()
    try:
        assert weights.read(path) is None
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()


def test_a_name_that_is_no_unicode_is_a_name(put: Any) -> None:
    data = with_header(b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"a")
    assert digest(put, data) == framed(b"tensors/1", b"\xed\xa0\x80", b"u1", b"1", b"a")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_is_recognised_but_not_unfolded(put: Any, compression: int) -> None:
    path = put(zipped({"m/data.pkl": b"", "m/data/0": bytes(80 << 20)}, compression))
    tracemalloc.start()
    try:
        assert weights.read(path) == Weights("torch", None, None, None)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    path = put(zipped({"step.npy": npy(np.array(7)), "w.npy": bytes(80 << 20)}, compression))
    assert weights.read(path) == Weights("npz", None, 2, None)


def test_a_member_that_claims_to_be_smaller_than_it_is_makes_no_weights(put: Any) -> None:
    data = zipped({"m/data.pkl": b".", "m/data/0": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    lie = data.replace(struct.pack("<I", 1 << 20), struct.pack("<I", 10))
    assert lie != data
    assert weights.read(put(lie)) is None


def test_a_member_that_claims_to_be_larger_than_it_is_makes_no_weights(put: Any) -> None:
    data = zipped({"m/data.pkl": b".", "m/data/0": bytes(1000)}, zipfile.ZIP_DEFLATED)
    lie = data.replace(struct.pack("<I", 1000), struct.pack("<I", 2000))
    assert lie != data
    assert weights.read(put(lie)) is None


def test_a_directory_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    size = 1 << 30
    with (tmp_path / "model.pt").open("wb") as file:
        file.write(b"PK\3\4")
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, size - 4, 4, 0))
    tracemalloc.start()
    try:
        assert weights.format_of(str(tmp_path / "model.pt")) is None
        assert weights.read(str(tmp_path / "model.pt")) is None
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_many_members_are_no_problem(put: Any) -> None:
    more = {f"data/{number}": b"%d" % number for number in range(1, 5000)}
    assert weights.format_of(put(torch_zip("m", **more))) == "torch"
    assert digest(put, torch_zip("m", **more)) == digest(put, torch_zip("n", **more))


def test_names_that_lead_out_of_the_folder_write_nothing(put: Any, tmp_path: Path) -> None:
    path = put(torch_zip("..", **{"../../escaped": b"x", "/data/1": b"y"}))
    before = sorted(tmp_path.parent.rglob("*"))
    found = weights.read(path)
    assert found is not None
    assert found.format == "torch"
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_make_no_weights(put: Any) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("m/data.pkl", "m/data/0", "m/data/0"):
            archive.writestr(name, b"x")
    assert weights.read(put(out.getvalue())) is None


def test_folders_in_a_zip_do_not_count(put: Any) -> None:
    members = {"m/": b"", "m/data.pkl": b".", "m/data/": b"", "m/data/0": b"x"}
    with_folders = zipped(members)
    without = zipped({name: data for name, data in members.items() if data})
    assert digest(put, with_folders) == digest(put, without)


def test_an_encrypted_member_makes_no_weights(put: Any) -> None:
    data = bytearray(zipped({"m/data.pkl": b"."}))
    data[data.index(b"PK\1\2") + 8] |= 1
    assert weights.read(put(bytes(data))) is None


@pytest.mark.parametrize(
    "shape",
    [b"(4611686018427387904, 4611686018427387904)", b"(" + b"9" * 30 + b",)", b"(" + b"2," * 9999 + b")"],
)
def test_an_array_that_claims_to_be_huge_makes_no_weights(put: Any, shape: bytes) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n" % shape
    data = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(16)
    assert weights.read(put(data)) is None
    assert weights.read(put(zipped({"w.npy": data}))) is None


VALID = [
    torch_zip("model", bytes(range(256))),
    torch_zip("model", **{"constants.pkl": b"\x80\x02).", "code/__torch__.py": b"class M"}),
    safetensors(PLAIN, {"step": "7"}),
    npz(w=F4, b=I8, step=np.array(7)),
    zipped({"w.npy": npy(F4), "b.npy": npy(I8)}, zipfile.ZIP_DEFLATED),
    npy(F4),
    keras(),
    HDF5,
    LEGACY,
]


@settings(max_examples=300, deadline=2000)
@given(
    data=st.sampled_from(VALID),
    keep=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=8),
)
def test_damage_never_raises_and_never_hangs(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, keep: float, flips: list[tuple[float, int]]
) -> None:
    damaged = bytearray(data[: round(len(data) * keep)])
    for where, bit in flips:
        if damaged:
            damaged[int(where * len(damaged))] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(damaged)
    weights.format_of(str(path))
    weights.read(str(path))


@pytest.mark.parametrize("data", VALID[:-2])
def test_what_is_cut_off_is_no_weights(put: Any, data: bytes) -> None:
    for size in range(10, len(data), 7):
        assert weights.read(put(data[:size])) is None


# ---- names


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a.pt",
            "a.pth",
            "A.PT",
            "model_best.pth.tar",
            "a.ckpt",
            "a.safetensors",
            "a.h5",
            "a.keras",
            "a.npz",
        ),
        *(
            "pytorch_model-00001-of-00002.bin",
            "adapter_model.bin",
            "diffusion_pytorch_model.bin",
            "optimizer.bin",
        ),
        *(
            "flax_model.msgpack",
            "a.gguf",
            "a.onnx",
            "a.pdparams",
            "a.pkl",
            "a.joblib",
            "__0_0.distcp",
            "a.tflite",
        ),
        *("saved_model.pb", "yolo.weights", "ckpt-1.index", "ckpt-1.data-00000-of-00001", "folder/model.bin"),
    ],
)
def test_the_names_of_weights_look_like_weights(name: str) -> None:
    assert weights.looks_like(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a.npy",
            "train.bin",
            "graph.pb",
            "model.safetensors.index.json",
            "config.json",
            "log.txt",
            "pt",
            "data",
        ),
        *("script", "a.data", "a.data-x-of-y", "model.bin/events", ""),
    ],
)
def test_other_names_do_not(name: str) -> None:
    assert not weights.looks_like(name)


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("checkpoint-500", 500),
        ("step_100.pt", 100),
        ("ckpt-0010.npz", 10),
        ("epoch=3-step=400.ckpt", 400),
        ("model_epoch_7.pth", 7),
        ("iter_0000500/mp_rank_00/model.pt", 500),
        ("global_step100/mp_rank_00_model_states.pt", 100),
        ("out/checkpoint-1000/model.safetensors", 1000),
        ("checkpoint-0004.npz", 4),
        ("model.ckpt-5000.data-00000-of-00001", 5000),
        ("Epoch3_Step40.pt", 40),
        ("epoch_2_iter_30.pt", 30),
        ("checkpoint_5_epoch_2.pt", 5),
        ("step_9/epoch_2.pt", 2),
        ("epoch=03-val_loss=0.12.ckpt", 3),
        ("checkpoint-500/pytorch_model-00001-of-00002.bin", 500),
        ("pytorch_model-00001-of-00002.bin", None),
        ("checkpoint-00001-of-00002.bin", None),
        ("resnet50.pth", None),
        ("v2-final.pt", None),
        ("checkpoint.pt", None),
        ("checkpoint-1.5.pt", None),
        ("checkpoint-2026-01-31.pt", None),
        ("step_100k.pt", None),
        ("footstep_100.pt", None),
        ("step_" + "9" * 19 + ".pt", None),
        ("step_" + "9" * 18 + ".pt", 10**18 - 1),
        ("step_7/a/b/model.pt", None),
        ("model-3.pt", None),
        ("step_٣.pt", None),
        ("", None),
    ],
)
def test_a_path_tells_its_step(path: str, step: int | None) -> None:
    assert weights.step_in_name(path) == step


# ---- folders


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ([".metadata", "__0_0.distcp", "__1_0.distcp"], "distcp"),
        (["__0_0.distcp"], None),
        (["model.safetensors.index.json", "model-00001-of-00002.safetensors", "config.json"], "sharded"),
        (["pytorch_model.bin.index.json", "pytorch_model-00002-of-00002.bin"], "sharded"),
        (["model.safetensors.index.json", "other-00001-of-00002.safetensors"], None),
        (["model-00001-of-00002.safetensors"], None),
        (["config.json", "model.safetensors", "optimizer.pt", "trainer_state.json"], "transformers"),
        (["config.json", "pytorch_model.bin"], "transformers"),
        (["config.json", "model.pt"], None),
        (["model.safetensors"], None),
        (["mp_rank_00_model_states.pt"], "deepspeed"),
        (["zero_pp_rank_0_mp_rank_00_optim_states.pt"], "deepspeed"),
        (["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"], "deepspeed"),
        (["checkpoint", "ckpt-1.index", "ckpt-1.data-00000-of-00001"], "tensorflow"),
        (
            ["checkpoint", "c-1.index", "c-1.data-00000-of-00002", "c-1.data-00001-of-00002", "log"],
            "tensorflow",
        ),
        (["checkpoint", *(f"ckpt-{n}.{end}" for n in (1, 2) for end in ("index", "data-0-of-1"))], None),
        (["checkpoint", "faiss.index"], None),
        (["saved_model.pb", "variables", "assets"], "tensorflow"),
        (["saved_model.pb", "variables/variables.index"], "tensorflow"),
        (["saved_model.pb"], None),
        (["_CHECKPOINT_METADATA", "default"], "orbax"),
        (["_METADATA", "manifest.ocdbt", "d"], "orbax"),
        (["orbax.checkpoint", "pytree"], "orbax"),
        (["_METADATA"], None),
        (["a.pt", "b.pt"], None),
        ([], None),
    ],
)
def test_a_folder_that_is_one_checkpoint_is_told_by_the_names_in_it(
    names: list[str], name: str | None
) -> None:
    assert weights.folder_format(names) == name
    assert weights.folder_format(iter(reversed(names))) == name


def test_the_digest_of_a_folder_is_that_of_its_fingerprint(tmp_path: Path) -> None:
    files = []
    for name in ("b.bin", "a/x", "a-b", "a.b", os.fsdecode(b"a/\xff"), "ä"):
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
        files.append((name, len(os.fsencode(name)), hashlib.sha256(os.fsencode(name)).hexdigest()))
    expected = fingerprint.fingerprint(str(tmp_path / "folder"), str(tmp_path / "manifest")).digest
    assert weights.folder_digest(files) == weights.folder_digest(reversed(files)) == expected
    assert weights.folder_digest(files[1:]) != expected
