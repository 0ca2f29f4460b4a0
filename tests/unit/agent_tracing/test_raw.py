from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mllaunch_agent.tracing.raw import Reader, Record, parse

NAME = "7-100-py"


def line(kind: str, ms: int, *fields: str) -> bytes:
    def escaped(field: str) -> bytes:
        return (
            field.replace("\\", "\\\\")
            .replace("\t", "\\t")
            .replace("\n", "\\n")
            .encode("utf-8", "surrogateescape")
        )

    return b"\t".join([kind.encode(), b"%d" % ms, *map(escaped, fields)])


def test_a_record_is_its_fields() -> None:
    assert parse(NAME, b"R\t12\t/a b/c") == [Record("R", 12, NAME, ("/a b/c",))]


@given(st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from("\t\n\\tn\udc80\udcff")), min_size=1))
def test_whatever_a_field_holds_is_read_as_it_was(fields: list[str]) -> None:
    (record,) = parse(NAME, line("S", 5, *fields))
    assert record.fields == tuple(fields)


@given(
    st.binary() | st.lists(st.sampled_from([b"\t", b"R", b"9", b"\\", b"/x", b"\xff", b"-"])).map(b"".join)
)
def test_no_bytes_whatever_are_an_error(data: bytes) -> None:
    for record in parse(NAME, data):
        assert len(record.kind) == 1
        assert record.ms >= 0


def test_a_number_that_would_take_minutes_to_be_read_is_none_of_ours() -> None:
    assert parse(NAME, b"R\t" + b"9" * 5000 + b"\t/x") == []


def test_a_line_that_was_torn_by_a_full_disk_costs_nothing_but_itself(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"R\t1\t/a\nW\t2\t/half\n\nR\t3\t/b\nR\t\n")
    assert [record.fields for record in Reader(str(tmp_path)).look()] == [("/a",), ("/half",), ("/b",)]


def test_a_line_is_given_when_it_is_complete_and_once(tmp_path: Path) -> None:
    reader = Reader(str(tmp_path))
    assert reader.look() == []
    with (tmp_path / NAME).open("ab", buffering=0) as file:
        file.write(b"R\t1\t/a\nR\t2\t/b")
        assert [record.ms for record in reader.look()] == [1]
        assert reader.look() == []
        file.write(b"c\n")
        assert [record.fields for record in reader.look()] == [("/bc",)]


def test_processes_are_given_in_the_order_of_time_and_each_as_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "1-1-py").write_bytes(b"R\t1\ta\nR\t8\tb\nR\t6\tc\nR\t9\td\n")  # two threads
    (tmp_path / "2-1-c").write_bytes(b"R\t2\te\nR\t7\tf\n")
    found = [record.fields[0] for record in Reader(str(tmp_path)).look()]
    assert found == ["a", "e", "f", "b", "c", "d"]


def test_other_files_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    for name in ("reads", "began", "code-0123", "1-2-py.tmp", "x-1-py"):
        (tmp_path / name).write_bytes(b"R\t1\t/a\n")
    assert Reader(str(tmp_path)).look() == []


def test_a_folder_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    assert Reader(str(tmp_path / "gone")).look() == []


def test_a_line_without_end_is_left_out_with_all_that_it_looks_like(tmp_path: Path) -> None:
    words = b"y" * (5 << 20) + b"\n"
    (tmp_path / NAME).write_bytes(b"R\t1\t/a\nP\t2\t" + words.replace(b"\n", b"\tR\t5\t/b\nR\t6\t/c\n"))
    reader = Reader(str(tmp_path))
    found = [record.fields[0] for _ in range(5) for record in reader.look()]
    assert found == ["/a", "/c"]


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b"R\t1\t/a\n", b"W\t2\t/b\n", b"\n", b"X"])).map(b"".join),
    st.integers(),
)
def test_it_makes_no_difference_in_how_many_pieces_a_file_is_read(data: bytes, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, NAME)
        path.write_bytes(data)
        whole = Reader(folder).look()
        path.write_bytes(b"")
        reader, found, at = Reader(folder), [], 0
        pieces = random.Random(seed)
        while at < len(data):
            step = pieces.randint(1, 40)
            with path.open("ab") as file:
                file.write(data[at : at + step])
            at += step
            found += reader.look()
        assert found == whole
