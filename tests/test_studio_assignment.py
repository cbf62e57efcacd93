"""Assignment under whatever people do: a machine joins, leaves, skips, submits twice and undoes, and the rules hold."""

import contextlib
import tempfile
import uuid
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harken.store import audit
from harken.store.database import open_database
from harken.studio.work import leases, projects
from harken.web.errors import ApiError
from studio_site import Desk, broken_rules, empty_postgres, open_template


class Assignment(RuleBasedStateMachine):
    """People join, leave, skip, submit twice, write drafts and undo, while clocks jump: the rules hold after every step."""

    people = st.sampled_from(["ana", "bo", "cy", "dee", "eve"])

    @initialize(overlap=st.sampled_from([1, 2, 3, {"min": 2, "max": 4}]), n=st.integers(1, 5), repeats=st.sampled_from([0, 0.3]))
    def begin(self, overlap, n, repeats):
        self.kept = contextlib.ExitStack()
        self.db = self.open()
        self.desk = Desk(self.db, n=n, overlap=overlap, repeat_rate=repeats, repeat_minutes=5, skip_limit=4)
        self.held = {}
        self.acknowledged = {}
        self.last = None

    def open(self):
        """An empty database, gone when the machine is torn down."""
        return self.kept.enter_context(open_template(self.kept.enter_context(tempfile.TemporaryDirectory())))

    @rule(name=people, count=st.integers(1, 3), lost=st.booleans())
    def claim(self, name, count, lost):
        mine = self.held.setdefault(name, {})
        for task in self.desk.claim(name, count, [] if lost else list(mine)):
            mine[task["assignment"]] = task

    @rule(name=people, which=st.integers(0, 9), preference=st.integers(-3, 3))
    def submit(self, name, which, preference):
        mine = self.held.get(name, {})
        if mine:
            task = mine.pop(sorted(mine)[which % len(mine)])
            said = {"client_id": str(uuid.uuid4()), "answer": {"preference": preference}}
            self.desk.submit(name, task, **said)
            self.acknowledged[said["client_id"]] = True
            self.last = (name, task, said)

    @precondition(lambda self: getattr(self, "last", None))
    @rule()
    def submit_twice(self):
        name, task, said = self.last
        assert self.desk.submit(name, task, **said)["already"]

    @rule(name=people, which=st.integers(0, 9), action=st.sampled_from(["skip", "unsafe"]))
    def refuse(self, name, which, action):
        mine = self.held.get(name, {})
        if mine:
            self.desk.do(action, name, mine.pop(sorted(mine)[which % len(mine)]))

    @rule(name=people)
    def undo(self, name):
        try:
            back = self.desk.undo(name)
        except ApiError as error:
            assert error.code == "nothing_to_undo"
            return
        self.held.setdefault(name, {})[back["task"]["assignment"]] = back["task"]

    @rule(name=people)
    def leave(self, name):
        user = self.desk.person(name)
        with self.db.link.writing() as tx:
            leases.leave(tx, user, self.desk.project, self.desk.clock())
        self.held.pop(name, None)

    @rule(minutes=st.sampled_from([1, 10, 31, 60 * 24, -20]))
    def clock_jumps(self, minutes):
        self.desk.clock.pass_(minutes=minutes)

    @rule(overlap=st.integers(1, 4))
    def lead_changes_the_overlap(self, overlap):
        with self.db.link.writing() as tx:
            projects.change_project(tx, self.desk.project, {"overlap": overlap}, self.desk.clock())
        done = max((r.done for r in self.desk.rows("SELECT done FROM items")), default=0)
        if done > overlap:  # answers beyond a lowered overlap were given under the higher one: they stay
            with self.db.link.writing() as tx:
                projects.change_project(tx, self.desk.project, {"overlap": done}, self.desk.clock())

    @invariant()
    def rules_hold(self):
        if hasattr(self, "db"):
            assert broken_rules(self.db) == []

    def teardown(self):
        if not hasattr(self, "db"):
            return
        stored = Counter(r.client_id for r in self.desk.rows("SELECT client_id FROM judgments"))
        assert set(stored) == set(self.acknowledged) and set(stored.values()) <= {1}
        self.desk.clock.pass_(days=2)  # every lease runs out; new people must be able to finish what is open
        for n in range(8):
            for _ in range(20):
                if not (tasks := self.desk.claim(f"new{n}")):
                    break
                self.desk.submit(f"new{n}", tasks[0])
        left = self.desk.rows("SELECT id, state, done, wanted FROM items WHERE state = 'open'")
        assert left == [], "starved"
        self.rules_hold()
        with self.db.link.reading() as connection:
            assert audit.check(connection).problems == ()
        self.kept.close()


TestAssignment = Assignment.TestCase
TestAssignment.settings = settings(max_examples=6, stateful_step_count=25, deadline=None,
                                   suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@pytest.mark.slow
class TestAssignmentAtLength(Assignment.TestCase):
    settings = settings(max_examples=60, stateful_step_count=50, deadline=None,
                        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


class AssignmentOnPostgres(Assignment):
    """The same rules on PostgreSQL."""

    server = None

    def open(self):
        return self.kept.enter_context(open_database(self.kept.enter_context(empty_postgres(self.server))))


@pytest.fixture(scope="module")
def machine_on_postgres(postgres):
    AssignmentOnPostgres.server = postgres


@pytest.mark.slow
@pytest.mark.usefixtures("machine_on_postgres")
class TestAssignmentOnPostgres(AssignmentOnPostgres.TestCase):
    settings = settings(max_examples=4, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
