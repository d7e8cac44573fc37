"""Items that are prepared while others are used."""

import threading

import pytest

from vae_jax.parallel.ahead import ahead


def test_the_next_item_is_made_while_one_is_used():
    made = [threading.Event() for _ in range(3)]

    def make():
        for i, event in enumerate(made):
            event.set()
            yield i

    for i in ahead(make()):
        assert made[min(i + 1, 2)].wait(60)


def test_an_error_comes_where_its_item_would():
    def make():
        yield 1
        raise OSError("gone")

    items = ahead(make())
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)


def test_no_items_are_none():
    assert list(ahead([])) == []
