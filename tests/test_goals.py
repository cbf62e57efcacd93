"""Small worlds with known goals: planners, inference, rankings, REINFORCE."""

import itertools

import numpy as np
import pytest
from scipy import optimize

from harken.goals import inference, mdp, planners, ranking, reinforce
from harken.goals.planners import PLANNERS

CORRIDOR = mdp.grid_world(["S..g"], goals="g", discount=0.5)


def random_world(seed, size=6, slip=0.2, discount=0.95):
    rng = np.random.default_rng(seed)
    rows = [["."] * size for _ in range(size)]
    for cell, name in zip(rng.choice(size * size, 3, replace=False), "abc"):
        rows[cell // size][cell % size] = name
    return mdp.grid_world(["".join(r) for r in rows], goals="abc", slip=slip, discount=discount)


VALUES = np.array(list(itertools.product(range(5), repeat=3)), dtype=float)


# --- worlds ---------------------------------------------------------------------------------------

def test_value_iteration_by_hand():
    """Three steps from the goal at discount 1/2: values 1/4, 1/2, 1 on the way, and always to the right."""
    q, v = mdp.value_iteration(CORRIDOR.mdp, CORRIDOR.reward({"g": 1.0}))
    assert v[:3] == pytest.approx([0.25, 0.5, 1.0]) and v[3] == 0
    assert q[:3].argmax(1).tolist() == [1, 1, 1]
    assert CORRIDOR.draw(q.argmax(1)) == "→→→g"


def test_a_finite_horizon_sees_only_so_far():
    """Two steps ahead: from the start nothing is in sight, from the next cell the goal is, at half."""
    _, v = mdp.value_iteration(CORRIDOR.mdp, CORRIDOR.reward({"g": 1.0}), horizon=2)
    assert v[:3] == pytest.approx([0.0, 0.5, 1.0])


def test_occupancy_and_evaluation_agree_with_value_iteration():
    world = random_world(0)
    reward = world.reward({"a": 1.0, "b": -2.0, "c": 3.0})
    q, v = mdp.value_iteration(world.mdp, reward)
    policy = mdp.softmax(q, np.inf)
    assert mdp.evaluate(world.mdp, policy, reward) == pytest.approx(v, abs=1e-8)
    assert mdp.occupancy(world.mdp, policy) @ reward == pytest.approx(world.mdp.start @ v)


def test_slip_spreads_over_the_four_moves_and_walls_stop():
    world = mdp.grid_world(["S#", ".g"], goals="g", slip=0.2)
    start = world.cells.index((0, 0))
    assert world.mdp.transitions[start, 1, start] == pytest.approx(0.8 + 0.05 * 3)  # right is a wall, so are up and left
    with pytest.raises(ValueError, match="no x"):
        mdp.grid_world(["S."], goals="x")
    with pytest.raises(ValueError, match="one length"):
        mdp.grid_world(["S.", "g"], goals="g")


def test_soft_values_come_near_the_hard_ones_as_beta_grows():
    world = random_world(1)
    reward = world.reward({"a": 1.0, "c": 2.0})
    hard, soft = mdp.value_iteration(world.mdp, reward)[1], mdp.soft_value_iteration(world.mdp, reward, 500.0)[1]
    assert np.abs(hard - soft)[~world.mdp.terminal].max() < 0.06


# --- planners -------------------------------------------------------------------------------------

def deadline(work=-1.0, wait=-0.1, gain=3.0, steps=10):
    """Procrastination: each day work (then be paid the day after) or wait; after the last day nothing is left to do."""
    S = 2 * steps + 2
    working, paid, missed = steps, 2 * steps, 2 * steps + 1
    move = np.zeros((S, 2, S))
    for t in range(steps):
        move[t, 0, working + t] = 1
        move[t, 1, t + 1 if t + 1 < steps else missed] = 1
        move[working + t, :, paid] = 1
    terminal = np.zeros(S, dtype=bool)
    terminal[[paid, missed]] = True
    move[paid, :, paid] = move[missed, :, missed] = 1
    reward = np.zeros(S)
    reward[:steps], reward[missed] = wait, wait
    reward[working:paid], reward[paid] = work, gain
    return mdp.MDP(move, terminal, np.eye(S)[0], 1.0), reward


def test_the_naive_discounter_puts_work_off_every_day():
    """k = 2, pay 3: today -1 + 3/3 = 0; tomorrow, seen from today, -0.1 - 1/3 + 3/5 = 0.17. So never; the patient start now."""
    world, reward = deadline()
    late = planners.naive(world, reward, beta=1000.0, k=2.0, horizon=25)
    assert (late[:9, 1] > 0.99).all()
    assert planners.naive(world, reward, beta=1000.0, k=0.0, horizon=25)[0, 0] > 0.99


def tempting_streets():
    """A donut shop (10 at once, -10 after) stands on the short way to the salad bar (-4 at once, 16 after). With k = 1, in n
    steps: from the start donuts in 3 are worth 10/3 - 10/4 = 0.83, salad in 6 -4/6 + 16/7 = 1.62, the long way round in 8
    1.28; but beside the donuts they are worth 10 - 10/2 = 5, salad in 4 only 2.2."""
    rows = ["##v.",
            "#...",
            "#.#.",
            "d.#.",
            "#.#.",
            "#S.."]
    grid = mdp.grid_world(rows, goals="vd")
    move, S = grid.mdp.transitions, grid.mdp.states
    wide = np.zeros((S + 2, 4, S + 2))
    wide[:S, :, :S] = move
    reward = np.full(S + 2, -0.01)
    for name, after, now, later in (("d", S, 10.0, -10.0), ("v", S + 1, -4.0, 16.0)):
        shop = grid.goals[name]
        wide[shop] = 0
        wide[shop, :, after] = 1
        wide[after, :, after] = 1
        reward[shop], reward[after] = now, later
    terminal = np.zeros(S + 2, dtype=bool)
    terminal[[S, S + 1]] = True
    start = np.eye(S + 2)[grid.cells.index((5, 1))]
    return grid, mdp.MDP(wide, terminal, start, 1.0), reward


def reached(world, grid, policy, name):
    """Probability of entering a shop."""
    return float(mdp.occupancy(world, policy)[grid.goals[name]])


def test_the_naive_give_in_on_the_way_and_the_sophisticated_take_the_long_way_round():
    grid, world, reward = tempting_streets()
    kinds = {name: planner(world, reward, beta=200.0, k=1.0, horizon=20)
             for name, planner in (("naive", planners.naive), ("sophisticated", planners.sophisticated))}
    assert reached(world, grid, kinds["naive"], "d") > 0.95
    assert reached(world, grid, kinds["sophisticated"], "v") > 0.95
    start = int(world.start.argmax())
    assert kinds["naive"][start].argmax() == 0 and kinds["sophisticated"][start].argmax() == 1


def test_without_discounting_all_kinds_of_discounter_are_one():
    world = random_world(2)
    reward = world.reward({"a": 1.0, "b": 2.0})
    a = planners.naive(world.mdp, reward, k=0.0)
    b = planners.sophisticated(world.mdp, reward, k=0.0)
    assert a == pytest.approx(b, abs=1e-9)


def test_calibration_one_is_optimal_and_certainty_ignores_slips():
    world = random_world(3)
    reward = world.reward({"a": 1.0})
    assert planners.confident(world.mdp, reward, calibration=1.0) == pytest.approx(planners.optimal(world.mdp, reward), abs=1e-9)
    sure = mdp.grid_world(world.rows, goals="abc", slip=0.0)
    assert planners.confident(world.mdp, reward, calibration=60.0) == pytest.approx(planners.optimal(sure.mdp, reward), abs=1e-3)
    assert planners.believing(sure.mdp, planners.optimal)(world.mdp, reward) == pytest.approx(planners.optimal(sure.mdp, reward))


# --- inference ------------------------------------------------------------------------------------

def test_posterior_by_hand():
    """One planner, two goals, one action seen: 0.8 against 0.2 under equal priors."""
    table = np.array([[[[0.8, 0.2]], [[0.2, 0.8]]]])
    found = inference.posterior(table, np.array([[1.0, 0.0]]))
    assert found.rewards == pytest.approx([0.8, 0.2])
    assert found.entropy == pytest.approx(-(0.8 * np.log2(0.8) + 0.2 * np.log2(0.2)))
    again = inference.posterior(table, np.array([[1.0, 0.0]]), prior=np.array([[0.2, 0.8]]))
    assert again.rewards == pytest.approx([0.5, 0.5])


def seen_actions(world, policy, n, rng):
    states = rng.choice(np.flatnonzero(~world.mdp.terminal), size=n)
    counts = np.zeros((world.mdp.states, world.mdp.actions))
    np.add.at(counts, (states, [rng.choice(4, p=policy[s]) for s in states]), 1)
    return counts


@pytest.mark.slow
def test_a_wrong_mistake_model_is_wrong_for_good_and_the_joint_one_recovers():
    """Small form of the table in docs/benchmarks.md: a naive agent seen 1,000 times, by a learner that takes it for rational
    and by one that also asks what kind it is."""
    names = ["optimal", "naive", "myopic"]
    assumed, joint, right = [], [], []
    for seed in (0, 3, 5):
        world, rng = random_world(seed), np.random.default_rng(seed)
        values = VALUES[::4]
        rewards = np.stack([world.reward(dict(zip("abc", v))) for v in values])
        table = inference.policy_table(world.mdp, rewards, {n: PLANNERS[n] for n in names})
        truth = next(i for i in rng.permutation(len(values)) if len(set(values[i])) == 3)
        counts = seen_actions(world, table[1, truth], 1000, rng)
        assumed.append(inference.regret(world.mdp, rewards[truth], rewards, inference.posterior(table[:1], counts).rewards))
        found = inference.posterior(table, counts)
        joint.append(inference.regret(world.mdp, rewards[truth], rewards, found.rewards))
        right.append(found.planners[1])
    assert np.mean(joint) <= 0.01 and np.mean(right) > 0.9
    assert np.mean(assumed) > np.mean(joint) + 0.02


def test_rational_and_anti_rational_cannot_be_told_apart_and_it_is_said():
    world, rng = random_world(4), np.random.default_rng(0)
    reward = world.reward({"a": 1.0, "b": 2.0, "c": 4.0})
    rewards = np.stack([reward, -reward])
    names = ["optimal", "anti-rational"]
    table = inference.policy_table(world.mdp, rewards, {n: PLANNERS[n] for n in names})
    counts = seen_actions(world, table[0, 0], 500, rng)
    found = inference.posterior(table, counts).table
    assert abs(np.log(found[0, 0]) - np.log(found[1, 1])) < 1e-12
    assert [(0, 0), (1, 1)] in inference.indistinct(table)
    assert "Not identifiable from behaviour" in inference.explain_indistinct(world.mdp, table, rewards, names)
    assert inference.explain_indistinct(world.mdp, table[:1, :1], rewards[:1], names[:1]) is None


def test_the_derivatives_of_mce_irl_are_exact():
    world = random_world(5, size=4)
    features = np.eye(world.mdp.states)[:, list(world.goals.values())]
    at, step = np.array([0.5, -0.3, 1.0]), 1e-5
    _, score = inference.soft_policy(world.mdp, features, at, 3.0)
    for f in range(3):
        up, down = (inference.soft_policy(world.mdp, features, at + d * step * np.eye(3)[f], 3.0)[0] for d in (1, -1))
        assert score[:, :, f] == pytest.approx((up - down) / (2 * step), abs=1e-4)


@pytest.mark.slow
def test_mce_irl_recovers_planted_weights_and_its_intervals_cover():
    """20 worlds, 600 actions each, 3 weights: 90 % intervals hold between 85 and 95 % of them, within 2 errors of a share."""
    held = []
    for seed in range(20):
        world, rng = random_world(seed, size=3, discount=0.8), np.random.default_rng(seed)
        features = np.eye(world.mdp.states)[:, list(world.goals.values())]
        planted = rng.uniform(0, 1.5, size=3)
        log_policy, _ = inference.soft_policy(world.mdp, features, planted, 8.0)
        found = inference.mce_irl(world.mdp, features, seen_actions(world, np.exp(log_policy), 600, rng), beta=8.0)
        held += (np.abs(found.weights - planted) < 1.645 * found.sd).tolist()
    assert 0.85 - 0.08 < np.mean(held) < 0.95 + 0.06


def test_policy_walk_visits_as_the_exact_posterior_says():
    world, rng = random_world(6, size=4), np.random.default_rng(1)
    grid, features = np.array([0.0, 1.0, 2.0]), np.eye(world.mdp.states)[:, list(world.goals.values())]
    values = np.array(list(itertools.product(grid, repeat=3)))
    table = inference.policy_table(world.mdp, values @ features.T, {"optimal": PLANNERS["optimal"]})
    counts = seen_actions(world, table[0, 7], 12, rng)
    exact = inference.posterior(table, counts).rewards
    walk = inference.policy_walk(world.mdp, grid, features, counts, steps=20_000, seed=0)
    visited = np.array([(walk == v).all(1).mean() for v in values])
    assert np.abs(visited - exact).sum() / 2 < 0.08  # total variation


# --- rankings -------------------------------------------------------------------------------------

def test_trex_by_hand():
    """One feature, one pair whose sums differ by 1: w solves σ(-w) = l2 w."""
    w = float(ranking.trex(np.array([[0.0], [1.0]]), [(0, 1)], l2=0.1)[0])
    assert 1 / (1 + np.exp(w)) == pytest.approx(0.1 * w, abs=1e-5)


def mediocre(seed, noise):
    """A world with goals of -2, 1 and 4, and policies that are the best one with a share of random moves."""
    world, rng = random_world(seed), np.random.default_rng(seed)
    truth = world.reward(dict(zip("abc", rng.permutation([-2.0, 1.0, 4.0]))))
    best = mdp.softmax(mdp.value_iteration(world.mdp, truth)[0], np.inf)
    features = np.eye(world.mdp.states)[:, list(world.goals.values())]
    return world, rng, truth, [(1 - e) * best + e / 4 for e in noise], features


def worth(world, policy, truth):
    return float(world.mdp.start @ mdp.evaluate(world.mdp, policy, truth))


def planned(world, reward):
    return mdp.softmax(mdp.value_iteration(world.mdp, reward)[0], np.inf)


def test_ranked_mediocre_demonstrations_teach_a_better_policy():
    """20 demonstrations of noise 1 to 0.5, ranked: T-REX's policy does better than the best demonstrator in 8 of 10 worlds."""
    wins = 0
    for seed in range(10):
        world, rng, truth, policies, features = mediocre(seed, np.linspace(1.0, 0.5, 20))
        shown = [ranking.entered(world.mdp, p, rng) for p in policies]
        ranks = [float(world.mdp.discount ** np.arange(len(t)) @ truth[t]) for t in shown]
        w = ranking.trex(ranking.returns(features, shown, world.mdp.discount), ranking.all_pairs(ranks))
        wins += worth(world, planned(world, features @ w), truth) > max(worth(world, p, truth) for p in policies)
    assert wins >= 8


@pytest.mark.slow
def test_drex_ranks_for_itself():
    """20 demonstrations of one noisy policy, ranked by nobody: D-REX's policy does better in 6 of 10 worlds."""
    wins = 0
    for seed in range(10):
        world, rng, truth, (policy,), features = mediocre(seed, [0.4])
        shown = [mdp.sample(world.mdp, policy, rng) for _ in range(20)]
        w = ranking.drex(world.mdp, shown, features, rng)
        wins += worth(world, planned(world, features @ w), truth) > worth(world, policy, truth)
    assert wins >= 6


# --- REINFORCE ------------------------------------------------------------------------------------

@pytest.mark.parametrize("baseline", ["mean", *(pytest.param(name, marks=pytest.mark.slow) for name in ("none", "value"))])
def test_sampled_gradients_average_to_the_exact_one_and_baselines_take_noise_away(baseline):
    world = mdp.grid_world(["S.", ".g"], goals="g", discount=0.9)
    reward = world.reward({"g": 1.0}) + 0.5
    logits = np.random.default_rng(0).normal(size=(world.mdp.states, 4))
    found, _ = reinforce.sampled_gradients(world.mdp, logits, reward, 4000, np.random.default_rng(1),
                                            baseline=baseline, length=160)  # 0.9^160 = 5e-8
    exact = reinforce.exact_gradient(world.mdp, logits, reward)
    error = found.std(0) / len(found) ** 0.5
    assert (np.abs(found.mean(0) - exact) <= 4.5 * error + 1e-9).all()
    if baseline != "none":
        plain, _ = reinforce.sampled_gradients(world.mdp, logits, reward, 1000, np.random.default_rng(2), length=160)
        assert found.var(0).sum() < plain.var(0).sum()


def test_the_exact_gradient_is_that_of_the_exact_return():
    world = random_world(7, size=3)
    reward = world.reward({"a": 1.0, "b": -1.0})
    logits = np.random.default_rng(0).normal(size=(world.mdp.states, 4))

    def worth(x):
        policy = reinforce.policy_of(x.reshape(logits.shape))
        return float(world.mdp.start @ mdp.evaluate(world.mdp, policy, reward))

    numeric = optimize.approx_fprime(logits.ravel(), worth, 1e-6).reshape(logits.shape)
    assert reinforce.exact_gradient(world.mdp, logits, reward) == pytest.approx(numeric, abs=1e-5)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_reinforce_finds_the_way(seed):
    world = mdp.grid_world(["S...", ".#..", "....", "...g"], goals="g", step_cost=0.02)
    reward = world.reward({"g": 1.0})
    best = float(world.mdp.start @ mdp.value_iteration(world.mdp, reward)[1])
    curve = reinforce.reinforce(world.mdp, reward, steps=80, seed=seed, rate=2.0)
    assert curve.returns[-1] > 0.9 * best > curve.returns[0]


# --- the demonstration ----------------------------------------------------------------------------

@pytest.mark.slow
def test_the_demo_shows_the_posterior_narrowing(tmp_path, capsys):
    from harken.cli.main import main
    assert main(["goals", "demo", "--demos", "300", "--out", str(tmp_path / "g.html")]) == 0
    shown = capsys.readouterr().out
    assert "naive" in shown and shown.splitlines()[-2].startswith("Mean believed worth")
    page = (tmp_path / "g.html").read_text()
    assert page.count("<tr>") >= 7 and "<svg" in page and "http" not in page
    assert main(["goals", "demo", "--demos", "0"]) == 2


@pytest.mark.slow
def test_the_demo_learns_what_kind_of_agent_it_is():
    from harken.goals.demo import AGENTS, Scene, watch
    first, *_, last = watch(Scene(agent="myopic", demonstrations=600, seed=1))
    assert last.joint.entropy < first.joint.entropy and last.joint.planners[AGENTS.index("myopic")] > 0.9
    assert last.joint_regret < 0.05
