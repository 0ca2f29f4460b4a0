from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mllaunch_agent.tracing import ledger as ledgers
from mllaunch_agent.tracing.ledger import Ledger, User
from mllaunch_agent.tracing.raw import Record, parse


class Notes:
    """A ledger that is told what processes do, a millisecond later each."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ms = 0

    def say(self, process: str, kind: str, *fields: str) -> None:
        self.ms += 1
        self.ledger.feed(Record(kind, self.ms, process, fields))

    def begin(self, pid: int, rank: str = "", parent: int = 1, layer: str = "python") -> str:
        name = f"{pid}-{self.ms}-{'py' if layer == 'python' else 'c'}"
        self.say(
            name, "P", layer, str(pid), str(parent), rank, "/bin/python", "3.11", "/w", "python", "train.py"
        )
        return name

    def fork(self, parent: int, pid: int, rank: str = "") -> str:
        name = self.begin(pid, rank, parent)
        self.say(name, "I", str(parent))
        return name

    def take(self, process: str, path: str, blob: str, how: str = "source") -> None:
        self.say(process, "C", how, blob, path)

    def mixed(self) -> dict[str, dict[str, list[int]]]:
        return {
            path: {blob: [user.pid for user in users] for blob, users in had.items()}
            for path, had in self.ledger.mixed()
        }


# --- code ---------------------------------------------------------------------------------------------------


def test_each_version_of_a_file_is_told_once_and_where_there_are_several_each_process() -> None:
    notes = Notes()
    one, two, three = (notes.begin(pid, str(pid)) for pid in (1, 2, 3))
    notes.take(one, "/w/a.py", "A")
    notes.take(two, "/w/./a.py", "A")
    assert [(u.path, u.blob, u.user, u.is_first) for u in notes.ledger.new_uses()] == [
        ("/w/a.py", "A", User(1, 1), True)
    ]
    notes.take(two, "/w/a.py", "B")
    notes.take(three, "/w/a.py", "A")
    assert [(u.blob, u.user.pid, u.is_first) for u in notes.ledger.new_uses()] == [
        ("B", 2, True),
        ("A", 3, False),
    ]
    assert notes.ledger.new_uses() == []


def test_a_reload_in_the_only_process_is_not_mixed_code() -> None:
    notes = Notes()
    one = notes.begin(1)
    notes.take(one, "/a.py", "A")
    notes.take(one, "/a.py", "B")
    assert notes.mixed() == {}


def test_a_reload_is_mixed_code_while_a_worker_that_was_forked_before_has_the_old() -> None:
    notes = Notes()
    one = notes.begin(1)
    notes.take(one, "/a.py", "A")
    notes.fork(1, 2)
    assert notes.mixed() == {}
    notes.take(one, "/a.py", "B")
    notes.fork(1, 3)
    assert notes.mixed() == {"/a.py": {"B": [1, 3], "A": [2]}}


def test_what_a_worker_took_by_itself_counts_and_what_its_parents_parent_had() -> None:
    notes = Notes()
    one = notes.begin(1)
    notes.take(one, "/a.py", "A")
    notes.fork(1, 2)
    notes.fork(2, 3)
    notes.take(one, "/a.py", "B")
    last = notes.fork(3, 4)
    notes.take(last, "/a.py", "B")
    assert notes.mixed() == {"/a.py": {"B": [1, 4], "A": [2, 3]}}


def test_workers_that_were_spawned_after_an_edit_are_mixed_code() -> None:
    notes = Notes()
    notes.take(notes.begin(1), "/a.py", "A")
    notes.take(notes.begin(2, parent=1), "/a.py", "B")
    assert notes.mixed() == {"/a.py": {"A": [1], "B": [2]}}


def test_two_ranks_with_different_versions_are_mixed_code_and_unknown_versions_are_not() -> None:
    notes = Notes()
    one, two = notes.begin(1, "0"), notes.begin(2, "1")
    notes.take(one, "/a.py", "A")
    notes.take(two, "/a.py", "B")
    notes.take(one, "/lib.so", "-", "native")
    notes.take(two, "/lib.so", "C", "native")
    assert notes.mixed() == {"/a.py": {"A": [1], "B": [2]}}
    assert notes.mixed() == {}, "it is told when it may have changed"
    notes.take(two, "/a.py", "A")
    assert notes.mixed() == {}


def test_the_c_layer_of_a_process_does_not_hide_what_its_forks_inherit() -> None:
    notes = Notes()
    one = notes.begin(1)
    notes.begin(1, layer="c")
    notes.take(one, "/a.py", "A")
    notes.fork(1, 2)
    notes.take(one, "/a.py", "B")
    assert notes.mixed() == {"/a.py": {"B": [1], "A": [2]}}


def test_what_the_c_layer_says_of_a_process_with_the_hook_is_not_another_version() -> None:
    notes = Notes()
    layer = notes.begin(1, layer="c")
    one = notes.begin(1)
    notes.take(one, "/a.py", "A")
    notes.take(layer, "/a.py", "B")  # as text, without its line ends
    alone = notes.begin(2, layer="c")  # with -I
    notes.take(alone, "/b.py", "C")
    again = notes.begin(1, layer="c")  # the pid is used again, with -I
    notes.take(again, "/c.py", "D")
    assert [(use.path, use.blob) for use in notes.ledger.new_uses()] == [
        ("/a.py", "A"),
        ("/b.py", "C"),
        ("/c.py", "D"),
    ]
    assert notes.mixed() == {}


def test_a_pid_that_is_used_again_is_another_process() -> None:
    notes = Notes()
    first = notes.begin(5)
    notes.take(first, "/a.py", "A")
    second = notes.begin(5)
    notes.take(second, "/a.py", "B")
    notes.fork(5, 6)
    assert notes.mixed() == {"/a.py": {"A": [5], "B": [5, 6]}}


def test_after_very_many_processes_a_new_version_is_still_told_of() -> None:
    notes = Notes()
    for pid in range(1, 260):
        notes.take(notes.begin(pid), "/a.py", "A")
    notes.ledger.new_uses()
    for pid in range(300, 340):
        notes.take(notes.begin(pid), "/a.py", "B")
    assert [(use.blob, use.user.pid) for use in notes.ledger.new_uses()] == [("B", 300)]
    assert set(notes.mixed()["/a.py"]) == {"A", "B"}
    assert notes.ledger.left_out == 59 + 39


# --- reading and writing ------------------------------------------------------------------------------------


def test_who_read_a_file_and_with_what() -> None:
    notes = Notes()
    one, two = notes.begin(1, "0"), notes.begin(2, "1")
    notes.say(one, "R", "/d/../a.pt")
    notes.say(two, "L", "torch.load", "/a.pt")
    notes.say(two, "R", "/a.pt")
    access = notes.ledger.reads["/a.pt"]
    assert (access.users, access.by, access.ms, access.last_ms) == (
        [User(0, 1), User(1, 2)],
        "torch.load",
        3,
        5,
    )


def test_a_file_is_the_runs_own_if_it_was_written_before_it_was_read() -> None:
    notes = Notes()
    one = notes.begin(1)
    for kind, path in (("W", "/a"), ("R", "/a"), ("R", "/b"), ("W", "/b"), ("R", "/b")):
        notes.say(one, kind, path)
    assert {path: access.is_own for path, access in notes.ledger.reads.items()} == {"/a": True, "/b": False}


def lost(*kinds: str) -> int:
    """Versions of /f that nobody looked at before the next: S and Z as of a save, W, M from /t to /f, ! a look."""
    notes = Notes()
    one = notes.begin(1)
    for kind in kinds:
        if kind == "!":
            notes.ledger.writes["/f"].seen()
        elif kind == "M":
            notes.say(one, "W", "/t")
            notes.say(one, "M", "/t", "/f")
        else:
            notes.say(one, kind, *(["torch.save", "7", "/f"] if kind == "S" else ["/f"]))
    return notes.ledger.writes["/f"].lost


def test_versions_that_were_superseded_unseen_are_counted() -> None:
    assert lost("W", "S") == 0
    assert lost("W", "S", "W", "S", "W", "S") == 2
    assert lost("W", "S", "!", "W", "S") == 0
    assert lost("W", "S", "W") == 1
    assert lost("M", "M", "M") == 2
    assert lost("M", "!", "M") == 0


def test_a_second_save_within_the_second_in_which_no_opening_is_told_is_counted() -> None:
    assert lost("W", "S", "S", "S") == 2
    assert lost("W", "S", "S", "!", "S") == 1


def test_the_closing_of_a_file_and_the_return_of_what_saved_it_are_one_version() -> None:
    assert lost("W", "W", "Z", "S") == lost("W", "S", "Z") == 0
    assert lost("W", "Z", "S", "Z", "S", "Z", "S") == 2
    assert lost("W", "Z", "Z") == 1


def test_what_a_save_told_of_a_version_does_not_stick_to_the_next() -> None:
    notes = Notes()
    one = notes.begin(1, "0")
    notes.say(one, "S", "torch.save", "7", "/f")
    writing = notes.ledger.writes["/f"]
    assert (writing.by, writing.step, writing.closed, writing.user) == ("torch.save", 7, True, User(0, 1))
    notes.say(one, "W", "/f")
    assert (writing.by, writing.step, writing.closed) == (None, None, False)


def test_a_renamed_file_keeps_what_is_known_of_it_and_is_whole() -> None:
    notes = Notes()
    one = notes.begin(1)
    notes.say(one, "W", "/x.tmp")
    notes.say(one, "S", "torch.save", "", "/x.tmp")
    notes.say(one, "M", "/x.tmp", "/x.pt")
    assert list(notes.ledger.writes) == ["/x.pt"]
    writing = notes.ledger.writes["/x.pt"]
    assert (writing.by, writing.closed, writing.changed, writing.lost, writing.first_ms) == (
        *("torch.save", True, True, 0),
        notes.ms,
    )


def test_a_renamed_folder_takes_its_files_along() -> None:
    notes = Notes()
    one = notes.begin(1)
    for name in ("/tmp-5/a/1", "/tmp-5/2", "/other"):
        notes.say(one, "W", name)
    notes.say(one, "M", "/tmp-5", "/step-5")
    assert set(notes.ledger.writes) == {"/step-5/a/1", "/step-5/2", "/other"}
    notes.say(one, "M", "/tmp-5", "/elsewhere")  # which nobody is known to have written
    assert "/elsewhere" in notes.ledger.writes
    notes.say(one, "M", "/step-5/a", "/b")
    assert set(notes.ledger.writes) == {"/b/1", "/step-5/2", "/other", "/elsewhere"}


def test_what_was_removed_unseen_is_counted_and_what_had_been_seen_is_forgotten() -> None:
    notes = Notes()
    one = notes.begin(1)
    for name in ("/a", "/b"):
        notes.say(one, "S", "torch.save", "", name)
    notes.ledger.writes["/b"].seen()
    for name in ("/a", "/b", "/c"):
        notes.say(one, "D", name)
    assert notes.ledger.writes == {}
    assert {path: writing.lost for path, writing in notes.ledger.gone.items()} == {"/a": 1}
    notes.say(one, "S", "torch.save", "", "/a")
    notes.say(one, "D", "/a")
    assert notes.ledger.gone["/a"].lost == 2


def test_what_cannot_be_seen_is_known() -> None:
    notes = Notes()
    one = notes.begin(1)
    for _ in range(2):
        notes.say(one, "X", "isolated", "python", "-I", "x.py", "more")
    notes.say(one, "N", "/usr/bin/ffmpeg")
    notes.say(one, "F", "/data/images/")
    notes.say(one, "E", "something")
    known = notes.ledger
    assert (known.shut, known.silent) == ({("isolated", "python -I x.py"): 2}, {"ffmpeg"})
    assert (known.folders, known.faults, known.layers) == ({"/data/images"}, {"something"}, {"python"})


# --- whatever comes -----------------------------------------------------------------------------------------

KINDS = st.sampled_from("PICRWZMDLSXNFEQ")
WORDS = st.sampled_from(
    ["", "-", "1", "2", "²", "9" * 30, "python", "/a", "/a/b", "/c", "torch.save", "\udcff"]
)
RECORDS = st.builds(
    Record,
    KINDS,
    st.integers(0, 10),
    st.sampled_from(["1-1-py", "2-1-c", "3-1-py", "x"]),
    st.lists(WORDS, max_size=9).map(tuple),
)


@given(st.lists(RECORDS))
def test_no_records_whatever_are_an_error(records: list[Record]) -> None:
    notes = Ledger()
    for record in records:
        notes.feed(record)
        list(notes.mixed())
        notes.new_uses()


@given(st.lists(st.binary(max_size=60)))
def test_no_bytes_whatever_are_an_error(lines: list[bytes]) -> None:
    notes = Ledger()
    for text in lines:
        for record in parse("1-1-py", text):
            notes.feed(record)


@given(st.lists(RECORDS), st.lists(st.integers(1, 5)))
def test_in_how_many_pieces_the_records_come_makes_no_difference(
    records: list[Record], sizes: list[int]
) -> None:
    whole, pieces = Ledger(), Ledger()
    for record in records:
        whole.feed(record)
    uses = []
    rest = records
    for size in [*sizes, len(records)]:
        for record in rest[:size]:
            pieces.feed(record)
        uses += pieces.new_uses()
        rest = rest[size:]
    assert uses == whole.new_uses()
    assert list(pieces.mixed()) == list(whole.mixed())
    assert {p: vars(w) for p, w in pieces.writes.items()} == {p: vars(w) for p, w in whole.writes.items()}
    assert {p: vars(a) for p, a in pieces.reads.items()} == {p: vars(a) for p, a in whole.reads.items()}


def test_a_program_that_opens_ever_more_files_costs_no_more() -> None:
    notes = Notes()
    one = notes.begin(1)
    most = ledgers._PATHS
    for number in range(most + 100):
        notes.ledger.feed(Record("R", 1, one, (f"/r{number}",)))
        notes.ledger.feed(Record("W", 1, one, (f"/w{number}",)))
    assert (len(notes.ledger.reads), len(notes.ledger.writes)) == (most, most)
    assert notes.ledger.left_out == 200
