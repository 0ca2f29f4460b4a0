from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mllaunch_agent.probes.accounting import Share, Total


def share(total: int, absorbed: int = 0, ppid: int = 1, start: int = 7) -> Share:
    return Share(start, ppid, total, absorbed)


def test_a_child_that_was_waited_for_is_counted_once() -> None:
    total = Total()
    assert total.update({10: share(5), 11: share(3, ppid=10)}) == 8
    assert total.update({10: share(9, absorbed=4)}) == 9  # 5 of its own, 4 of the child by the time it ended


def test_a_child_whose_parent_ignores_its_end_is_not_forgotten() -> None:
    total = Total()
    total.update({10: share(5), 11: share(3, ppid=10)})
    assert total.update({10: share(6)}) == 9


def test_a_child_that_lived_between_two_samples_shows_in_its_parent() -> None:
    total = Total()
    total.update({10: share(5)})
    assert total.update({10: share(25, absorbed=20)}) == 25


def test_a_family_that_ended_together_shows_in_its_nearest_living_ancestor() -> None:
    total = Total()
    assert total.update({10: share(1), 11: share(2, ppid=10), 12: share(4, ppid=11)}) == 7
    assert total.update({10: share(7, absorbed=6)}) == 7


def test_what_the_main_process_used_remains_when_it_is_gone() -> None:
    total = Total()
    total.update({10: share(5), 11: share(3, ppid=10)})
    assert total.update({11: share(4, ppid=1)}) == 9
    assert total.update({}) == 9


def test_a_reused_pid_adds_to_the_total() -> None:
    total = Total()
    total.update({10: share(5, start=7)})
    assert total.update({10: share(2, start=8)}) == 7


def test_a_ring_of_parents_made_of_reused_pids_comes_to_an_end() -> None:
    total = Total()
    total.update({10: share(5, ppid=11), 11: share(3, ppid=10)})
    assert total.update({}) == 8


processes = st.dictionaries(
    st.integers(1, 6),
    st.builds(Share, st.integers(1, 2), st.integers(1, 6), st.integers(0, 100), st.integers(0, 50)),
)


@given(st.lists(processes, max_size=6))
def test_the_total_never_decreases_while_each_process_only_grows(samples: list[dict[int, Share]]) -> None:
    total = Total()
    last = 0
    seen: dict[tuple[int, int], Share] = {}
    for sample in samples:
        grown = {}
        for pid, new in sample.items():
            old = seen.get((pid, new.start_ticks), Share(new.start_ticks, new.ppid, 0, 0))
            absorbed = old.absorbed + new.absorbed
            grown[pid] = new._replace(total=old.total + new.total + new.absorbed, absorbed=absorbed)
            seen[pid, new.start_ticks] = grown[pid]
        now = total.update(grown)
        assert now >= last
        last = now
