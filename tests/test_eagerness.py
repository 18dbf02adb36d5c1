"""Staying awake for what comes at once: it is given up where it is in vain, and taken up again where it is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zosfs.eagerness import MOST_PAUSE, SHORT, Eagerness


def in_vain_of(eagerness: Eagerness, sleeps: list[float]) -> int:
    """How often it stays awake in vain before these sleeps."""
    tries = 0
    for seconds in sleeps:
        if eagerness.awake():
            tries += 1
            eagerness.in_vain()
        eagerness.slept(seconds)
    return tries


@given(st.lists(st.floats(0, 2 * SHORT)))
def test_where_nothing_ever_comes_at_once_it_sleeps_nearly_always(sleeps: list[float]) -> None:
    assert in_vain_of(Eagerness(), sleeps) <= MOST_PAUSE.bit_length() + len(sleeps) / MOST_PAUSE


@given(st.lists(st.sampled_from(["came", "in vain", "short"])), st.lists(st.floats(SHORT, 10), min_size=2))
def test_long_sleeps_alone_never_keep_it_awake(history: list[str], sleeps: list[float]) -> None:
    eagerness = after(history)
    assert in_vain_of(eagerness, sleeps) <= 1


@given(st.lists(st.sampled_from(["came", "in vain", "short"])))
def test_short_sleeps_make_it_try_again(history: list[str]) -> None:
    eagerness = after(history)
    for _ in range(MOST_PAUSE):
        eagerness.slept(SHORT / 2)
    assert eagerness.awake()


@given(st.lists(st.sampled_from(["came", "in vain", "short"])))
def test_once_in_vain_among_many_costs_one_sleep(history: list[str]) -> None:
    eagerness = after([*history, "came", "in vain"])
    eagerness.slept(SHORT / 2)
    assert eagerness.awake()


def after(history: list[str]) -> Eagerness:
    """One that saw this."""
    eagerness = Eagerness()
    for event in history:
        if event == "came":
            eagerness.came()
        elif event == "in vain":
            eagerness.in_vain()
        else:
            eagerness.slept(SHORT / 2)
    return eagerness
