"""`harken goals demo`: what an agent wants, found by watching it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from harken.core.errors import UserError

AGENTS = ("optimal", "naive", "sophisticated", "myopic", "overconfident")  # here, so that --help needs no NumPy


def add_commands(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `goals`; it sets `handler`."""
    goals = subparsers.add_parser("goals", help="what an agent wants, found by watching it (harken goals demo)")
    demo = goals.add_subparsers(dest="what", metavar="demo", required=True).add_parser(
        "demo", help="the posterior over goals narrowing as an agent is watched",
        description="Watches an agent in a small world and prints what a learner believes of its goals: one that asks what kind "
                    "of planner it is, beside one that takes it for rational. docs/goals.md tells the story.")
    demo.add_argument("--agent", choices=AGENTS, default="naive", help="who is watched (default naive)")
    demo.add_argument("--demos", type=int, default=300, metavar="N", help="actions seen (default 300)")
    demo.add_argument("--seed", type=int, default=0, metavar="N")
    demo.add_argument("--out", type=Path, metavar="FILE.html", help="write a page with every frame")
    demo.set_defaults(handler=run_demo)


def run_demo(args: argparse.Namespace) -> int:
    """`harken goals demo`."""
    if not 1 <= args.demos <= 100_000:
        raise UserError(f"--demos {args.demos} is out of range.", "It must be at least 1 and at most 100000.")
    if args.out and (args.out.is_dir() or not args.out.parent.is_dir()):
        raise UserError(f"--out {args.out} cannot be written.", "Name a file in a folder that exists, like goals.html.")
    from harken.goals import demo
    scene = demo.Scene(args.agent, args.demos, args.seed)
    print(demo.world().draw())
    names = demo.GOALS.values()
    truth = ", ".join(f"{name} is worth {w:g}" for name, w in zip(names, scene.truth))
    print(f"A {scene.agent} agent; in truth {truth}.\n")
    print(_line("seen", names, "kind", "P(kind)", "regret", "if taken for rational"))
    frames = []
    for frame in demo.watch(scene):
        frames.append(frame)
        means = demo.worths(frame.joint.rewards) @ demo.WORTHS
        kind = int(frame.joint.planners.argmax())
        print(_line(str(frame.seen), [f"{m:.2f}" for m in means], demo.AGENTS[kind], f"{frame.joint.planners[kind]:.2f}",
                    f"{frame.joint_regret:.3f}", f"{frame.rational_regret:.3f}"))
    print("\nMean believed worth of each goal; regret 0 serves the agent as well as can be, 1 is acting at random.")
    if args.out:
        from harken.draw.goals import page
        args.out.write_text(page(scene, frames), encoding="utf-8")
        print(f"{args.out}: open it in a browser")
    return 0


def _line(seen: str, worths: Iterable[str], kind: str, sure: str, *regrets: str) -> str:
    columns = "".join(f"{w:>10}" for w in worths)
    return f"{seen:>6}  {columns}  {kind:>14}  {sure:>7}  " + "  ".join(f"{r:>6}" for r in regrets)
