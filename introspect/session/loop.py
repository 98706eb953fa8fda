"""The loop: a phase as a stream of events, and of requests for replies that a driver serves."""

from __future__ import annotations

from typing import get_args

from introspect import events
from introspect.events import Status
from introspect.phase.config import ExperimentConfig
from introspect.session.exchange import Answer, GenerationRequest, Steps, T
from introspect.session.session import Ending, Session
from introspect.session.turn import CORRUPT, audit_experiment, run_turn

WORST_LAST: tuple[Status, ...] = get_args(Status)
"""Statuses in their order: the status of a run is the worst that one of its experiments ended with."""


def run_phase(session: Session, experiments: tuple[ExperimentConfig, ...]) -> Steps[Status]:
    """Run the experiments in order; returns the worst of their statuses."""
    session.started = session.clock()
    return (yield from counted(session, run_experiments(session, experiments)))


def counted(session: Session, steps: Steps[T]) -> Steps[T]:
    """The same steps; each event is added to the session's figures before whatever comes after it."""
    answer: Answer | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            ended: T = end.value
            return ended
        if not isinstance(step, GenerationRequest):
            session.tally.take(step)
        answer = yield step


def run_experiments(session: Session, experiments: tuple[ExperimentConfig, ...]) -> Steps[Status]:
    """Run the experiments in order; returns the worst of their statuses.

    None follows one that ends as corrupt, or for which there is not enough memory even after a prune.
    """
    for index, experiment in enumerate(experiments):
        last = index == len(experiments) - 1
        ended = yield from run_experiment(session, index, experiment, last)
        session.status = max(session.status, ended, key=WORST_LAST.index)
        if ended == "corrupt" or session.out_of_memory:
            break
    return session.status


def run_experiment(
    session: Session, index: int, experiment: ExperimentConfig, last: bool = False
) -> Steps[Status]:
    """Run one experiment until it is complete, failed, corrupt or at a limit; returns which.

    `last` says that the run ends with it.
    """
    before = session.instructions
    session.begin_experiment(index, experiment)
    task = session.transcript.messages[0].text
    now = session.instructions
    changed = now != before
    yield events.ExperimentStart(
        experiment=index,
        name=experiment.name,
        task=task,
        system_prompt=now.text if changed else None,
        system_tokens=now.tokens if changed else None,
        tool_framing=now.tools.described() if changed and now.tools else None,
    )
    yield events.UserMessage(experiment=index, turn=0, kind="task", text=task)
    ended: Ending | None = None
    while ended is None:
        ended = session.limit_reached() or (yield from run_turn(session))
    if ended[0] != "corrupt" and (yield from audit_experiment(session, last)):
        ended = CORRUPT
    status, reason = ended
    yield events.ExperimentEnd(
        experiment=index,
        name=experiment.name,
        status=status,
        reason=reason,
        turns=session.figures.turns,
        tool_calls=session.figures.calls,
    )
    return status
