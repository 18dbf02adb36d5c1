"""Who wants to know what names are: he who had to ask for some, for as long as he goes on; and names that the kernel holds missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zosfs.fs import negative_names
from zosfs.fs.kinds_wanted import ENOUGH, LASTS, KindsWanted
from zosfs.fs.negative_names import SLACK, NegativeNames


def test_nobody_wants_to_know_before_he_asks() -> None:
    kinds = KindsWanted()
    assert not kinds.wants(7, 0.0)
    kinds.told(1, 7, 100, 0.0)
    for _ in range(ENOUGH - 1):
        kinds.asked(1, 7, 0.0, first=False)
    assert not kinds.wants(7, 0.0)
    kinds.asked(1, 7, 0.0, first=False)
    assert kinds.wants(7, 0.0)
    assert not kinds.wants(8, 0.0), "others have habits of their own"


def test_a_small_directory_asked_for_whole_is_enough() -> None:
    kinds = KindsWanted()
    kinds.told(1, 7, 1, 0.0)
    kinds.asked(1, 7, 0.0, first=False)
    assert kinds.wants(7, 0.0)


def test_asking_for_names_of_other_directories_shows_nothing() -> None:
    kinds = KindsWanted()
    kinds.told(1, 7, 100, 0.0)
    for _ in range(2 * ENOUGH):
        kinds.asked(2, 7, 0.0, first=False)
    assert not kinds.wants(7, 0.0)


def test_who_asks_for_the_first_name_begins_to_ask_for_all() -> None:
    kinds = KindsWanted()
    kinds.told(1, 7, 100, 0.0)
    assert kinds.asked(1, 7, 0.0, first=True)
    assert not kinds.wants(7, 0.0)
    assert not kinds.asked(1, 7, 0.0, first=False)
    assert kinds.wants(7, 0.0)


def test_others_and_those_who_asked_for_another_name_before_and_those_who_come_late_do_not() -> None:
    kinds = KindsWanted()
    for directory in (1, 2, 3):
        kinds.told(directory, 7, 100, 0.0)
    assert not kinds.asked(1, 8, 0.0, first=True)
    assert not kinds.asked(2, 7, 0.0, first=False)
    assert not kinds.asked(2, 7, 0.0, first=True)
    assert not kinds.asked(3, 7, LASTS, first=True)


def test_it_lasts_while_he_goes_on() -> None:
    kinds = KindsWanted()
    kinds.told(1, 7, 1, 0.0)
    kinds.asked(1, 7, 0.0, first=False)
    now = 0.0
    for _ in range(5):
        now += LASTS * 0.9
        assert kinds.wants(7, now)
    assert not kinds.wants(7, now + LASTS)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([b"a", b"b", b"c"]), st.floats(0, 3)), max_size=60), st.integers(1, 6))
def test_no_name_that_the_kernel_may_hold_missing_is_overlooked(told: list[tuple[int, bytes, float]], most: int) -> None:
    before, negative_names.MOST = negative_names.MOST, most
    try:
        names, now = NegativeNames(5.0), 0.0
        until: dict[tuple[int, bytes], float] = {}
        for directory, name, pause in told:
            now += pause
            names.told(directory, name, now)
            until[directory, name] = now + 5.0
            for (above, held), end in until.items():
                if now < end:
                    assert names.hold(above, held, now)
        assert not any(names.hold(above, held, now + 5.0 + SLACK) for above, held in until)
    finally:
        negative_names.MOST = before
