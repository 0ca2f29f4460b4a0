from __future__ import annotations

import uuid
from itertools import count

from mllaunch.domain.reference import check_name
from mllaunch.runlog.names import RandomIds
from mllaunch.runlog.words import ADJECTIVES, ANIMALS


def zeros(size: int) -> bytes:
    return bytes(size)


def ones(size: int) -> bytes:
    return b"\xff" * size


def test_an_id_is_the_uuid_of_rfc_9562s_example() -> None:
    """Appendix A.6: 2022-02-22T19:22:22Z, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F."""
    random_bits = 0xCC3 << 62 | 0x18C4DC0C0C07398F
    ids = RandomIds(lambda: 0x017F22E279B0 * 1_000_000, lambda size: random_bits.to_bytes(size, "big"))
    assert ids.run_id() == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_ids_grow_even_when_the_clock_stands_or_goes_back() -> None:
    times = iter([5_000_000, 5_000_000, 4_000_000, -1, 0, 6_000_000, 6_000_000])
    ids = RandomIds(lambda: next(times), ones)
    given = [ids.run_id() for _ in range(7)]
    assert given == sorted(set(given))
    for text in given:
        assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (7, uuid.RFC_4122)


def test_ids_sort_by_time() -> None:
    clock = count(0, 1_000_000)
    fill = iter(b"\xff\x00\xff\x00")
    ids = RandomIds(lambda: next(clock), lambda size: bytes([next(fill)] * size))
    given = [ids.run_id() for _ in range(4)]
    assert given == sorted(given)


def test_a_clock_beyond_the_48_bits_still_gives_a_uuid() -> None:
    text = RandomIds(lambda: 10**30, zeros).run_id()
    assert str(uuid.UUID(text)) == text


def test_names_are_made_of_the_words() -> None:
    assert RandomIds(lambda: 0, zeros).run_name() == f"{ADJECTIVES[0]}-{ANIMALS[0]}-1"
    numbers = iter([1, 2, 98, 99 * 5])
    ids = RandomIds(lambda: 0, lambda size: next(numbers).to_bytes(size, "big"))
    assert ids.run_name() == f"{ADJECTIVES[1]}-{ANIMALS[2]}-99"


def test_every_word_may_stand_in_a_name_and_stands_there_once() -> None:
    words = ADJECTIVES + ANIMALS
    assert len(words) == len(set(words)) > 300
    for word in words:
        assert word.isascii() and word.islower() and word.isalpha() and 2 < len(word) < 10
        check_name(word)


def test_real_sources_give_a_valid_id_and_name() -> None:
    ids = RandomIds()
    assert uuid.UUID(ids.run_id()).version == 7
    check_name(ids.run_name())
