from __future__ import annotations

from typing import Any

import pytest

from mllaunch.config.values import NodeAddress
from mllaunch.domain.job import Resources
from mllaunch.domain.placement import Offer, Wish, check_count, choose, meant, wish
from mllaunch.errors import MllaunchError, NotFound, Unreachable, UsageError

SILENT = Offer("silent", problem="silent cannot be reached: it does not answer")


def offer(node: str, gpus: int = 8, free: int | None = None, **more: Any) -> Offer:
    made = Offer(node, gpus, gpus if free is None else free, cpus=64, memory_bytes=1 << 39)
    return made._replace(**more)


def refusal(wanted: Resources, *offers: Offer, named: bool = False) -> MllaunchError:
    with pytest.raises(MllaunchError) as caught:
        choose(wanted, offers, named=named)
    return caught.value


def test_named_nodes_are_taken_in_their_order_whatever_there_is_to_do() -> None:
    offers = [offer("busy", free=0, waiting=5), offer("idle"), offer("small", gpus=1)]
    assert choose(Resources(gpus=1, nodes=3), offers, named=True) == ["busy", "idle", "small"]
    assert choose(Resources(gpus=1), offers[:1], named=True) == ["busy"]


@pytest.mark.parametrize(
    ("count", "wanted", "code", "message"),
    [
        (1, Wish(("a", "b"), exactly=True), "nodes", "--nodes 1, but --node names 2 nodes"),
        (3, Wish(("a",), exactly=True), "nodes", "--nodes 3, but --node names 1 node"),
        (5, Wish(), "placement", "5 nodes are wanted, and the configuration has 3"),
        (3, Wish(("a", "b")), "placement", "3 nodes are wanted, and --node means 2"),
    ],
)
def test_a_number_of_nodes_that_cannot_be_had_is_refused_without_asking_any(
    count: int, wanted: Wish, code: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        check_count(count, wanted, 3)
    assert (caught.value.code, caught.value.message) == (code, message)


def test_a_number_of_nodes_that_may_be_had_is_not_refused() -> None:
    check_count(3, Wish(), 3)
    check_count(1, Wish(("a", "b")), 3)
    check_count(2, Wish(("a", "b"), exactly=True), 3)


@pytest.mark.parametrize("named", [True, False])
def test_what_no_choice_could_give_is_refused_with_what_each_node_lacks(named: bool) -> None:
    error = refusal(Resources(gpus=4, nodes=2), offer("a", gpus=1), offer("b", gpus=0), named=named)
    assert isinstance(error, UsageError)
    assert error.code == "placement"
    assert error.message == "2 nodes with 4 GPUs: 0 of 2 can serve"
    assert error.evidence == ("a: it has 1 GPU", "b: it has 0 GPUs")
    assert error.hint == "mllaunch nodes"


def test_only_the_nodes_that_lack_something_are_named() -> None:
    error = refusal(Resources(gpus=4, nodes=2), offer("a", gpus=2), offer("b"))
    assert error.message == "2 nodes with 4 GPUs: 1 of 2 can serve"
    assert error.evidence == ("a: it has 2 GPUs",)


@pytest.mark.parametrize(
    ("wanted", "message", "lack"),
    [
        (Resources(cpus=65), "1 node with 65 CPUs: 0 of 1 can serve", "a: it has 64 CPUs"),
        (
            Resources(gpus=1, memory_bytes=1 << 40),
            "1 node with 1 GPU, 1.0 TiB of memory: 0 of 1 can serve",
            "a: it has 512.0 GiB of memory",
        ),
    ],
)
def test_cpus_and_memory_count_too(wanted: Resources, message: str, lack: str) -> None:
    error = refusal(wanted, offer("a"))
    assert error.message == message
    assert error.evidence == (lack,)
    assert choose(Resources(gpus=8, cpus=64, memory_bytes=1 << 39), [offer("a")], named=False) == ["a"]


def test_a_node_that_cannot_be_asked_is_not_missed_where_others_can_serve() -> None:
    assert choose(Resources(gpus=1), [SILENT, offer("a")], named=False) == ["a"]


@pytest.mark.parametrize(
    ("wanted", "offers", "named"),
    [
        (Resources(nodes=2), [SILENT, offer("a")], False),
        (Resources(nodes=2), [SILENT, offer("a")], True),
        (Resources(gpus=8), [SILENT, offer("a", gpus=1)], False),
    ],
)
def test_where_a_node_that_cannot_be_asked_would_be_needed_it_is_named(
    wanted: Resources, offers: list[Offer], named: bool
) -> None:
    error = refusal(wanted, *offers, named=named)
    assert isinstance(error, Unreachable)
    assert error.message.endswith("and 1 cannot be asked")
    assert "silent cannot be reached: it does not answer" in error.evidence


def test_what_many_nodes_lack_is_told_once() -> None:
    silent = [
        Offer(f"n{n}", host=f"10.0.0.{n}", problem=f"n{n} (10.0.0.{n}) cannot be reached: it does not answer")
        for n in range(1, 98)
    ]
    error = refusal(Resources(gpus=8, nodes=3), *silent, offer("x", gpus=1), offer("y", gpus=1))
    assert error.evidence == (
        "n1 (10.0.0.1) cannot be reached: it does not answer; likewise n2, n3, n4 and 93 more",
        "x: it has 1 GPU; likewise y",
    )


def test_what_would_not_do_even_with_the_silent_ones_is_a_mistake_of_the_user() -> None:
    error = refusal(Resources(nodes=3), SILENT, offer("a"))
    assert isinstance(error, UsageError)
    assert error.message == "3 nodes with anything: 1 of 2 can serve"


def test_without_any_node_nothing_can_serve() -> None:
    assert refusal(Resources()).message == "1 node with anything: 0 of 0 can serve"


def test_nodes_that_can_begin_at_once_come_first_the_fullest_before_the_others() -> None:
    offers = [
        offer("none free", free=0),
        offer("empty"),
        offer("fuller", free=3),
        offer("just enough", free=2),
        offer("one free", free=1),
        offer("enough, but others wait", free=4, waiting=1),
        offer("long queue", free=0, waiting=2),
    ]
    assert choose(Resources(gpus=2, nodes=7), offers, named=False) == [
        "just enough",
        "fuller",
        "empty",
        "one free",
        "none free",
        "enough, but others wait",
        "long queue",
    ]


def test_runs_without_gpus_go_where_there_is_least_to_do() -> None:
    offers = [offer("a", load=32.0), offer("b", load=8.0), offer("c", load=4.0, cpus=2), offer("d", load=8.0)]
    assert choose(Resources(nodes=4), offers, named=False) == ["b", "d", "a", "c"]


def test_of_equal_nodes_the_order_of_the_configuration_decides() -> None:
    assert choose(Resources(gpus=1, nodes=2), [offer("z"), offer("a"), offer("m")], named=False) == ["z", "a"]


def test_preferred_nodes_come_first_in_their_order_as_far_as_they_can_begin_at_once() -> None:
    offers = [offer("a", free=1), offer("b"), offer("c", free=0), offer("d")]

    def chosen(wanted: Resources, *preferred: str) -> list[str]:
        return choose(wanted, offers, named=False, preferred=preferred)

    assert chosen(Resources(gpus=1, nodes=2), "d", "b") == ["d", "b"]
    assert chosen(Resources(gpus=1, nodes=2), "c", "d") == ["d", "a"]
    assert chosen(Resources(nodes=2), "c", "d") == ["c", "d"]
    assert chosen(Resources(gpus=1), "unknown") == ["a"]


def test_what_else_a_node_lacks_counts_too() -> None:
    offers = [offer("bare", lack="no container engine: none answers"), offer("b")]
    assert choose(Resources(), offers, named=False) == ["b"]
    error = refusal(Resources(nodes=2), *offers)
    assert isinstance(error, UsageError)
    assert error.evidence == ("bare: no container engine: none answers",)


NODES = (
    NodeAddress("a", groups=("lab", "old"), labels=(("gpu", "a100"),)),
    NodeAddress("b", groups=("lab",), labels=(("gpu", "h100"), ("rack", "3"))),
    NodeAddress("c"),
)


def test_a_word_means_a_node_a_group_or_a_label() -> None:
    assert [meant(word, NODES) for word in ("c", "lab", "gpu=h100")] == [["c"], ["a", "b"], ["b"]]


@pytest.mark.parametrize("word", ["d", "gpu", "gpu=", "gpu=v100", "a100", ""])
def test_a_word_that_means_nothing_is_named_with_what_there_is(word: str) -> None:
    with pytest.raises(NotFound) as caught:
        meant(word, NODES)
    assert caught.value.message == (
        f"there is no node {word or 'without a name'}; the configuration has a, b, c, the groups lab, old, "
        "the labels gpu=a100, gpu=h100, rack=3"
    )


@pytest.mark.parametrize(
    ("word", "near"), [("nod1", "node1"), ("gpu=a200", "gpu=a100"), ("labs", "lab"), ("what", None)]
)
def test_what_was_nearly_a_name_is_asked_for(word: str, near: str | None) -> None:
    nodes = (NodeAddress("node1", groups=("lab",), labels=(("gpu", "a100"),)),)
    with pytest.raises(NotFound) as caught:
        meant(word, nodes)
    assert caught.value.hint == (f"did you mean {near}? " if near else "") + "mllaunch nodes"


def test_of_many_nodes_some_are_listed() -> None:
    with pytest.raises(NotFound) as caught:
        meant("x", [NodeAddress(f"n{number}") for number in range(100)])
    assert caught.value.message.endswith("n18, n19 and 80 more")


def test_named_nodes_are_all_meant_and_in_their_order_but_any_of_a_group() -> None:
    assert wish((), NODES) == Wish((), exactly=False)
    assert wish(("c", "a"), NODES) == Wish(("c", "a"), exactly=True)
    assert wish(("lab",), NODES) == Wish(("a", "b"), exactly=False)
    assert wish(("rack=3", "old"), NODES) == Wish(("a", "b"), exactly=False)


def test_a_node_that_is_named_twice_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        wish(("a", "c", "a"), NODES)
    assert caught.value.message == "--node a: it is named twice"
    assert wish(("lab", "lab"), NODES) == Wish(("a", "b"), exactly=False)


def test_nodes_and_groups_are_not_asked_for_together() -> None:
    with pytest.raises(UsageError) as caught:
        wish(("lab", "c"), NODES)
    assert caught.value.message == "--node c is a node, but --node lab means any of several"
