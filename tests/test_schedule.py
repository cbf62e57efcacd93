"""Learning rates by hand, and the order in which examples are seen."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
from harken.core.errors import UserError
from harken.loops.schedule import Order, learning_rate


def rates(total, **options):
    settings = {"schedule": "cosine", "warmup": 0.0, **options}
    return [learning_rate(step, total, 1.0, **settings) for step in range(total)]


def test_cosine_by_hand():
    """Four steps: 0.1 + 0.45 (1 + cos(pi s / 4)) at s = 0, 1, 2, 3: cos = 1, 0.70711, 0, -0.70711."""
    assert rates(4) == pytest.approx([1.0, 0.868198, 0.55, 0.231802], abs=1e-6)


def test_cosine_falls_to_a_tenth():
    assert rates(1000)[-1] == pytest.approx(0.1, abs=1e-5)
    assert min(rates(1000)) >= 0.1


def test_linear_and_constant_by_hand():
    assert rates(4, schedule="linear") == [1.0, 0.75, 0.5, 0.25]
    assert rates(3, schedule="constant") == [1.0, 1.0, 1.0]


def test_warm_up_by_hand():
    """Half of 4 steps is 2: 1/2, 2/2, then the schedule over the other 2 from its start: 1, 0.55."""
    assert rates(4, warmup=0.5) == pytest.approx([0.5, 1.0, 1.0, 0.55])
    assert rates(3, warmup=0.01, schedule="constant") == [1.0, 1.0, 1.0]  # one step, at the peak
    assert rates(4, warmup=1.0) == [0.25, 0.5, 0.75, 1.0]


def test_one_step_has_a_rate():
    for schedule in ("cosine", "linear", "constant"):
        assert rates(1, schedule=schedule) == [1.0]


def test_an_unknown_schedule_is_named():
    with pytest.raises(UserError, match="'cosin' is unknown"):
        learning_rate(0, 1, 1.0, schedule="cosin", warmup=0.0)


@given(n=st.integers(1, 60), batch=st.integers(1, 70), epochs=st.integers(1, 3), seed=st.integers(0, 5))
def test_each_epoch_sees_each_example_once(n, batch, epochs, seed):
    order = Order(n, batch, epochs, seed)
    for epoch in range(epochs):
        seen = Counter(i for part in range(order.per_epoch) for i in order(epoch * order.per_epoch + part))
        assert seen == Counter(range(n))
    assert order.total == epochs * order.per_epoch


def test_the_last_batch_is_short_not_dropped():
    order = Order(10, 4, 2, 0)
    assert [len(order(s)) for s in range(order.total)] == [4, 4, 2, 4, 4, 2]


def test_order_is_a_function_of_seed_and_step():
    order, again = Order(20, 5, 2, 1), Order(20, 5, 2, 1)
    assert [order(s) for s in range(8)] == [again(s) for s in (*range(4), *range(4, 8))]
    assert order(0) != Order(20, 5, 2, 2)(0)
    assert [i for s in range(4) for i in order(s)] != [i for s in range(4, 8) for i in order(s)]


def test_parts_of_an_epoch_are_rounded_to_steps():
    assert Order(10, 4, 0.5, 0).total == 2  # 1.5 steps, rounded to even
    assert Order(10, 4, 0.01, 0).total == 1


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(UserError, match="nothing left"):
        Order(0, 4, 1, 0)
