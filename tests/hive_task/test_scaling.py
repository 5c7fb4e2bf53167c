"""What `hive_task.scaling` promises: of single decisions, of all decisions, and of what they lead to (simulated)."""

import math
from collections import deque
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise
from operator import itemgetter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive_task.hardware import Hardware
from hive_task.scaling import (
    LARGEST_MAXIMUM,
    LONG_REST,
    LOOK,
    PATIENCE,
    PER_WORKER,
    REST,
    SLOW_LOOK,
    SMALLEST_MAXIMUM,
    STALLED,
    STEP,
    Decision,
    Limits,
    Load,
    decide,
    limits,
    next_look,
)

IDLE_MACHINE = Hardware(cpus=8, logical=8, load=0.0, memory=64 << 30, available=32 << 30)

#: Works block: eight workers for eight processors are all occupied, and use half a processor.
BLOCKED = Load(
    limits=Limits(1, 8, 64),
    workers=8,
    queued=100,
    running=8,
    oldest_wait=0.3,
    busy=1.0,
    cpu=0.5,
    cpus=8,
    interval=0.1,
    since_change=5.0,
)
#: 32 workers, none of which has had anything to do for long.
IDLE = Load(limits=Limits(1, 8, 64), workers=32, idle=32, cpus=8, interval=5.0, idle_for=REST, since_change=REST)


# Limits


def test_by_default_as_many_as_processors():
    assert limits(hardware=IDLE_MACHINE) == Limits(1, 8, 32)
    assert limits(hardware=replace(IDLE_MACHINE, cpus=0.5)).start == 1
    assert limits(hardware=replace(IDLE_MACHINE, cpus=2.1)).start == 3


def test_the_default_of_the_maximum():
    assert limits(hardware=replace(IDLE_MACHINE, cpus=1)).maximum == SMALLEST_MAXIMUM
    assert limits(hardware=Hardware(cpus=20)) == Limits(1, 20, 80)
    assert limits(hardware=Hardware(cpus=200)) == Limits(1, 200, LARGEST_MAXIMUM)
    assert limits(hardware=Hardware(cpus=500)) == Limits(1, LARGEST_MAXIMUM, LARGEST_MAXIMUM)


def test_not_more_than_memory_allows():
    assert limits(hardware=replace(IDLE_MACHINE, available=3 * PER_WORKER)) == Limits(1, 3, 3)
    assert limits(hardware=replace(IDLE_MACHINE, available=20 * PER_WORKER)) == Limits(1, 8, 20)
    assert limits(hardware=replace(IDLE_MACHINE, available=0)) == Limits(1, 1, 1)


@pytest.mark.parametrize(("load", "start"), [(0.0, 8), (1.0, 8), (2.5, 7), (4.0, 5), (5.0, 4), (50.0, 4)])
def test_fewer_where_others_load_the_machine_but_not_less_than_half(load, start):
    assert limits(hardware=replace(IDLE_MACHINE, load=load)).start == start


def test_the_load_of_a_big_machine_leaves_room_for_a_small_quota():
    assert limits(hardware=Hardware(cpus=2, logical=64, load=30.0)).start == 2


def test_a_given_number_is_the_number():
    assert limits(3) == Limits(3, 3, 3)
    assert limits(3, minimum=1) == Limits(1, 3, 3)
    assert limits(3, maximum=9) == Limits(3, 3, 9)
    assert limits(3, 2, 9) == Limits(2, 3, 9)


def test_given_bounds_override_what_the_hardware_suggests():
    assert limits(minimum=3, hardware=IDLE_MACHINE) == Limits(3, 8, 32)
    assert limits(minimum=12, hardware=IDLE_MACHINE) == Limits(12, 12, 32)
    assert limits(minimum=50, hardware=IDLE_MACHINE) == Limits(50, 50, 50)
    assert limits(maximum=4, hardware=IDLE_MACHINE) == Limits(1, 4, 4)
    assert limits(maximum=1000, hardware=replace(IDLE_MACHINE, available=0)) == Limits(1, 1, 1000)
    assert limits(minimum=5, maximum=6, hardware=IDLE_MACHINE) == Limits(5, 6, 6)


def test_limits_without_hardware_look_at_this_machine():
    found = limits()
    assert 1 == found.minimum <= found.start <= found.maximum


class Seven:
    def __index__(self):
        return 7


def test_whatever_is_an_integer_will_do():
    assert limits(Seven()) == Limits(7, 7, 7)


@pytest.mark.parametrize("name", ["workers", "minimum", "maximum"])
def test_bad_numbers_are_refused_at_once(name):
    for bad in (True, False, 1.0, "2", int, [1]):
        with pytest.raises(TypeError, match=f"^{name} must be an integer, or None"):
            limits(**{name: bad}, hardware=IDLE_MACHINE)
    for bad in (0, -1):
        with pytest.raises(ValueError, match=f"^{name} must be 1 or more, or None"):
            limits(**{name: bad}, hardware=IDLE_MACHINE)


def test_contradictions_are_refused_at_once():
    with pytest.raises(ValueError, match="the minimum of 5 workers is more than the maximum of 4"):
        limits(minimum=5, maximum=4, hardware=IDLE_MACHINE)
    with pytest.raises(ValueError, match="the minimum of 5 workers is more than the maximum of 4"):
        limits(4, 5, 4)
    with pytest.raises(ValueError, match="4 workers are not between the minimum 5 and the maximum 5"):
        limits(4, minimum=5)
    with pytest.raises(ValueError, match="5 workers are not between the minimum 1 and the maximum 4"):
        limits(5, 1, 4)
    with pytest.raises(ValueError, match="5 workers are not between the minimum 4 and the maximum 4"):
        limits(5, maximum=4)
    with pytest.raises(ValueError, match="at least one"):
        Limits(0, 1, 1)


# Single decisions


def test_grows_by_doubling_when_works_block():
    assert decide(BLOCKED) == Decision(
        16, "100 works wait, the oldest for 0.3 s; the works block: 0.5 of 8 processors are in use"
    )


def test_does_not_grow_when_works_compute():
    decision = decide(replace(BLOCKED, cpu=7.7))
    assert decision == Decision(8, "100 works wait, but 7.7 of 8 processors are in use: the works compute")


def test_a_quota_of_less_than_one_processor_is_used_up_sooner():
    assert decide(replace(BLOCKED, cpus=0.5, cpu=0.5)).workers == 8
    assert decide(replace(BLOCKED, cpus=0.5, cpu=0.1)).workers == 16


def test_does_not_grow_when_others_use_the_machine():
    decision = decide(replace(BLOCKED, machine=0.97))
    assert decision == Decision(8, "100 works wait, but 97% of the machine's processors are in use")
    assert decide(replace(BLOCKED, machine=0.5)).workers == 16


def test_does_not_grow_when_works_take_turns_with_the_gil():
    decision = decide(replace(BLOCKED, cpu=1.0, gil=True))
    assert decision.workers == 8
    assert "take turns with the GIL" in decision.reason
    assert decide(replace(BLOCKED, cpu=1.0, gil=False)).workers == 16


def test_machine_code_that_leaves_the_gil_alone_may_grow():
    assert decide(replace(BLOCKED, cpu=3.0, gil=True)).workers == 16
    few = replace(BLOCKED, limits=Limits(1, 4, 64), workers=4, cpu=1.0, gil=True)
    assert decide(few).workers == 8, "there is a processor for each yet: growing is the way to find out"


def test_no_more_workers_than_works():
    assert decide(replace(BLOCKED, queued=3)).workers == 11


def test_no_more_workers_than_would_occupy_the_processors():
    assert decide(replace(BLOCKED, cpu=6.0)).workers == 11  # 8 * 8 / 6
    assert decide(replace(BLOCKED, cpu=7.1)).workers == 10
    assert decide(replace(BLOCKED, gil=True, cpu=0.8)).workers == 10, "one processor between them"


def test_no_more_workers_than_the_maximum():
    assert decide(replace(BLOCKED, limits=Limits(1, 8, 12))).workers == 12
    assert decide(replace(BLOCKED, limits=Limits(1, 8, 8))) == Decision(
        8, "100 works wait, but 8 workers are the maximum"
    )


def test_up_to_the_usual_number_at_once():
    fresh = replace(BLOCKED, workers=1, running=1, oldest_wait=0.0, interval=60.0, since_change=0.0, cpu=8.0)
    assert decide(fresh) == Decision(8, "100 works wait, and there are fewer workers than the usual 8")
    assert decide(replace(fresh, queued=2)).workers == 3


@pytest.mark.parametrize(
    "change",
    [
        {"oldest_wait": PATIENCE / 2},
        {"since_change": LOOK / 2},
        {"interval": 0.0},
        {"interval": 5.0},
        {"guess": 0.4},
        {"queued": 0},
        {"idle": 1},
    ],
)
def test_does_not_grow_too_early_nor_for_what_will_be_done_soon(change):
    assert decide(BLOCKED).workers > 8
    assert decide(replace(BLOCKED, **change)).workers == 8


def test_the_more_workers_the_longer_it_measures():
    sixteen = replace(BLOCKED, workers=16, running=16, since_change=2 * LOOK, interval=2 * LOOK)
    assert decide(sixteen).workers == 32
    assert decide(replace(sixteen, since_change=LOOK)).workers == 16
    assert decide(replace(sixteen, interval=LOOK / 2)).workers == 16
    assert next_look(replace(sixteen, since_change=LOOK)) == 2 * LOOK
    a_little_early = 2 * LOOK * 0.999999
    assert decide(replace(sixteen, since_change=a_little_early, interval=a_little_early)).workers == 32


def test_a_guess_of_long_works_or_a_wrong_guess_does_not_prevent_growing():
    assert decide(replace(BLOCKED, guess=10.0)).workers == 16
    assert decide(replace(BLOCKED, guess=0.001, since_progress=STALLED)).workers == 16


def test_a_standstill_is_called_so():
    assert "nothing was begun or finished for 3 s" in decide(replace(BLOCKED, since_progress=3.0)).reason


def test_relieves_a_deadlock_though_the_processors_are_in_use():
    stuck = replace(BLOCKED, cpu=8.0, waiting=8, since_progress=STALLED)
    assert decide(stuck).workers == 9
    assert "8 wait for futures" in decide(stuck).reason
    assert decide(replace(stuck, gil=True, cpu=1.0)).workers == 9
    assert decide(replace(stuck, since_progress=STALLED / 2)).workers == 8
    assert decide(replace(stuck, running=16)).workers == 8, "as many works as processors are running: they compute"
    assert decide(replace(stuck, waiting=0)).workers == 8, "long works that compute"
    threaded = replace(stuck, limits=Limits(1, 2, 64), workers=2, running=2, waiting=0)
    assert decide(threaded).workers == 2, "two long works that compute with four threads each"


def test_relieves_a_deadlock_with_as_many_workers_as_it_may_have():
    """Each new worker begins a work that waits for another that has not begun."""
    for cpu in (0.0, 8.0):
        workers = 8
        while workers < 64:
            stuck = replace(BLOCKED, workers=workers, cpu=cpu, running=workers, waiting=workers)
            pause = next_look(replace(stuck, since_progress=0.0))
            assert pause is not None
            stuck = replace(stuck, interval=1.0, oldest_wait=9.0, since_change=1.0, since_progress=STALLED)
            assert decide(stuck).workers > workers
            workers = decide(stuck).workers


def test_returns_to_the_usual_number_by_halves():
    seen = [32]
    while (decided := decide(replace(IDLE, workers=seen[-1], idle=seen[-1])).workers) != seen[-1]:
        seen.append(decided)
    assert seen == [32, 20, 14, 11, 9, 8]


def test_returns_to_the_minimum_after_a_longer_rest():
    usual = replace(IDLE, workers=8, idle=8)
    assert decide(usual).workers == 8
    seen = [8]
    while (decided := decide(replace(usual, workers=seen[-1], idle=seen[-1], idle_for=LONG_REST)).workers) != seen[-1]:
        seen.append(decided)
    assert seen == [8, 4, 2, 1]


@pytest.mark.parametrize(
    "change", [{"idle_for": REST * 0.9}, {"since_change": STEP * 0.9}, {"busy": 0.8}, {"idle": 0}, {"queued": 32}]
)
def test_keeps_its_workers_until_it_is_sure_that_they_are_not_needed(change):
    assert decide(IDLE).workers < 32
    assert decide(replace(IDLE, **change)).workers == 32


def test_leaves_as_many_as_the_load_needs():
    halfway = replace(IDLE, idle=16, busy=0.5)
    seen = [32]
    while True:
        now = replace(halfway, workers=seen[-1], idle=seen[-1] - 16, busy=16 / seen[-1])
        if decide(now).workers == seen[-1]:
            break
        seen.append(decide(now).workers)
    assert seen == [32, 26, 23, 22, 21]  # a quarter more than are busy, and one


def test_limits_that_were_changed_take_effect_at_once():
    assert decide(replace(BLOCKED, limits=Limits(1, 2, 4))) == Decision(4, "8 workers are more than the maximum")
    assert decide(replace(IDLE, limits=Limits(40, 40, 40))) == Decision(40, "32 workers are fewer than the minimum")
    assert decide(replace(BLOCKED, workers=0)).workers == 1, "the last worker was lost"


def test_loads_limits_and_decisions_do_not_change():
    for one, name in [(BLOCKED, "workers"), (BLOCKED.limits, "start"), (decide(BLOCKED), "workers")]:
        with pytest.raises(FrozenInstanceError):
            setattr(one, name, 2)


# When to look again


def test_no_polling_at_rest():
    assert next_look(replace(IDLE, workers=1, idle=1, idle_for=0.0, since_change=0.0)) is None
    assert next_look(replace(IDLE, limits=Limits(8, 8, 8), workers=8, idle=8)) is None
    assert next_look(replace(IDLE, limits=Limits(8, 8, 8), workers=8, idle=0, running=8)) is None


def test_no_polling_for_a_fixed_number_even_under_load():
    assert next_look(replace(BLOCKED, limits=Limits(8, 8, 8))) is None


def test_looks_soon_while_works_wait_and_seldom_where_that_does_not_help():
    assert next_look(replace(BLOCKED, oldest_wait=0.0)) == LOOK
    assert next_look(BLOCKED) == 2 * LOOK, "twice as many workers from now on"
    assert next_look(replace(BLOCKED, cpu=8.0)) == SLOW_LOOK
    assert next_look(replace(BLOCKED, workers=64)) == SLOW_LOOK


def test_looks_again_when_the_rest_is_long_enough():
    assert next_look(replace(IDLE, idle_for=4.0)) == pytest.approx(REST - 4.0)
    assert next_look(replace(IDLE, since_change=0.5)) >= STEP - 0.5
    assert next_look(IDLE) == STEP
    assert next_look(replace(IDLE, workers=8, idle=8, idle_for=20.0)) == pytest.approx(LONG_REST - 20.0)


# All decisions

SECONDS = st.one_of(st.sampled_from([0.0, LOOK, STALLED, STEP, REST, LONG_REST]), st.floats(0, 200))


@st.composite
def loads(draw):
    low, mid, high = sorted(draw(st.tuples(*[st.integers(1, 80)] * 3)))
    workers = draw(st.integers(0, 100))
    cpus = draw(st.sampled_from([0.25, 1.0, 1.5, 2.0, 8.0, 64.0]))
    running = draw(st.integers(0, 200))
    return Load(
        limits=Limits(low, mid, high),
        workers=workers,
        idle=draw(st.integers(0, workers)),
        queued=draw(st.one_of(st.just(0), st.integers(0, 1000))),
        running=running,
        waiting=draw(st.integers(0, running)),
        oldest_wait=draw(SECONDS),
        busy=draw(st.floats(0, 1)),
        cpu=draw(st.floats(0, 1.1)) * cpus,
        cpus=cpus,
        machine=draw(st.none() | st.floats(0, 1)),
        gil=draw(st.booleans()),
        interval=draw(SECONDS),
        idle_for=draw(SECONDS),
        since_change=draw(SECONDS | st.just(math.inf)),
        since_progress=draw(SECONDS),
        guess=draw(st.none() | SECONDS),
    )


@settings(max_examples=300, deadline=None)
@given(loads())
def test_what_holds_for_every_decision(load):
    decision = decide(load)
    now, low, usual, high = load.workers, load.limits.minimum, load.limits.start, load.limits.maximum
    assert low <= decision.workers <= high
    assert decision == decide(load)
    assert decision.reason
    if decision.workers > now >= low:
        assert load.short
        assert decision.workers <= min(high, now + load.queued, max(2 * now, usual))
    if decision.workers < now <= high:
        assert decision.workers >= now - load.idle
        assert decision.workers >= math.ceil(load.busy * now)
        assert load.idle_for >= (REST if now > usual else LONG_REST)
        assert load.since_change >= STEP
        assert not load.queued or load.queued < load.idle


@settings(max_examples=300, deadline=None)
@given(loads())
def test_nothing_is_slept_through(load):
    """Where no look is announced, no time that passes leads to another number, nor does becoming idle."""
    after = replace(load, workers=decide(load).workers, since_change=0.0)
    after = replace(after, idle=min(load.idle, after.workers))
    pause = next_look(load)
    if pause is None:
        later = replace(after, idle=after.workers, queued=0, busy=0.0, idle_for=1e9, since_change=1e9)
        assert decide(later).workers == after.workers
        if load.short:
            assert decide(replace(load, since_change=1e9, since_progress=1e9)).workers == after.workers
    else:
        assert LOOK <= pause <= LONG_REST


@settings(max_examples=200, deadline=None)
@given(loads())
def test_no_decision_is_taken_back_at_once(load):
    decided = decide(load).workers
    new = decided - load.workers
    if decided > load.workers:
        after = replace(load, workers=decided, idle=new, queued=0, since_change=0.0, idle_for=0.0)
        assert decide(after).workers >= decided
    elif decided < load.workers <= load.limits.maximum:
        after = replace(load, workers=decided, idle=max(0, load.idle + new), since_change=0.0)
        assert decide(after).workers == decided


# What they lead to


class Simulation:
    """A scheduler, its workers and processors, as discrete events; no threads, and time is a number.

    A work is (seconds that it blocks, seconds that it computes then). Works that compute share the processors equally;
    with the GIL, one processor.
    """

    def __init__(self, arrivals, limits, cpus, gil=False, cpu_elsewhere=0.0):
        self.arrivals, self.limits, self.cpus, self.gil = deque(sorted(arrivals, key=itemgetter(0))), limits, cpus, gil
        self.elsewhere = cpu_elsewhere
        self.now = self.busy = self.cpu = self.measured = self.changed = self.progressed = self.short_at = 0.0
        self.workers, self.look = limits.start, 0.0
        self.queue, self.running, self.short = deque(), [], False
        self.changes, self.done, self.looks = [], [], 0

    def run(self, until):
        while self.now < until:
            came = False
            while self.arrivals and self.arrivals[0][0] <= self.now:
                came = True
                self.queue.append(self.arrivals.popleft())
            while self.queue and len(self.running) < self.workers:
                _, blocks, computes = self.queue.popleft()
                self.running.append([blocks, computes])
                self.progressed = self.now
            if self.queue:
                self.short_at = self.now
                if came and not self.short and self.limits.minimum < self.limits.maximum:
                    self.look = self.now
            if self.look is not None and self.look <= self.now:
                self.scale()
                continue
            self.advance(until)
        return self

    def advance(self, until):
        computing = [work for work in self.running if work[0] <= 0]
        free = min(1.0, self.cpus) if self.gil else self.cpus
        speed = min(1.0, max(0.0, free - self.elsewhere) / len(computing)) if computing else 0.0
        ends = [until, until if self.look is None else self.look]
        if self.arrivals:
            ends.append(self.arrivals[0][0])
        for blocks, computes in self.running:
            ends.append(self.now + (blocks if blocks > 0 else computes / speed if speed else math.inf))
        span = max(min(ends) - self.now, 1e-9)
        self.now += span
        self.busy += span * len(self.running)
        self.cpu += span * (speed * len(computing) + self.elsewhere)
        for work in self.running:
            if work[0] > 0:
                work[0] = work[0] - span if work[0] - span > 1e-9 else 0.0
            else:
                work[1] -= span * speed
        ended = [work for work in self.running if work[0] <= 0 and work[1] <= 1e-9]
        if ended:
            self.running = [work for work in self.running if not (work[0] <= 0 and work[1] <= 1e-9)]
            self.done += [self.now] * len(ended)
            self.progressed = self.now

    def scale(self):
        interval = self.now - self.measured
        load = Load(
            limits=self.limits,
            workers=self.workers,
            idle=self.workers - len(self.running),
            queued=len(self.queue),
            running=len(self.running),
            oldest_wait=self.now - self.queue[0][0] if self.queue else 0.0,
            busy=min(1.0, self.busy / interval / self.workers) if interval else 0.0,
            cpu=self.cpu / interval if interval else 0.0,
            cpus=self.cpus,
            gil=self.gil,
            interval=interval,
            idle_for=self.now - self.short_at,
            since_change=self.now - self.changed,
            since_progress=self.now - self.progressed,
        )
        decided, pause = decide(load).workers, next_look(load)
        assert self.limits.minimum <= decided <= self.limits.maximum
        assert decided >= len(self.running), "only idle workers can leave"
        self.measured, self.busy, self.cpu = self.now, 0.0, 0.0
        self.short = load.short
        self.look = None if pause is None else self.now + pause
        self.looks += 1
        if decided != self.workers:
            self.changes.append((self.now, self.workers, decided))
            self.workers, self.changed = decided, self.now

    @property
    def largest(self):
        return max([self.limits.start, *(after for _, _, after in self.changes)])

    def turns(self):
        """How often the number went the other way than before."""
        signs = [after > before for _, before, after in self.changes]
        return sum(one != other for one, other in pairwise(signs))


def mixed(works, blocks, computes):
    """Works that are all there from the beginning, and take so long on average (exponentially distributed)."""
    random = Random(works)
    return [(0.0, random.expovariate(1 / blocks), random.expovariate(1 / computes)) for _ in range(works)]


def steady(rate, seconds, blocks, computes):
    return [(n / rate, blocks, computes) for n in range(int(rate * seconds))]


LIMITS = Limits(1, 4, 64)


def test_simulated_burst_of_blocking_works_grows_within_two_seconds_and_returns_to_rest():
    burst = Simulation([(1.0, 0.5, 0.001)] * 400, LIMITS, cpus=4).run(200)
    assert burst.largest == 64
    assert next(at for at, _, after in burst.changes if after == 64) < 3.0
    assert len(burst.done) == 400
    assert max(burst.done) < 7, "with four workers it would have taken fifty seconds"
    assert (burst.workers, burst.look) == (1, None)
    assert burst.turns() == 1


def test_simulated_steady_blocking_load_converges():
    """A hundred works a second that each block for a tenth of a second occupy ten workers."""
    run = Simulation(steady(100, 120, 0.1, 0.0001), LIMITS, cpus=4).run(120)
    assert 10 <= run.workers <= 16
    assert run.turns() <= 1
    assert [change for change in run.changes if change[0] > 30] == [], "it flaps"
    assert len(run.done) > 11_900


def test_simulated_computing_load_does_not_grow():
    run = Simulation([(0.0, 0.0, 0.2)] * 400, LIMITS, cpus=4).run(15)
    assert run.changes == []
    assert run.looks < 40


def test_simulated_computing_load_with_the_gil_does_not_grow():
    run = Simulation([(0.0, 0.0, 0.2)] * 100, LIMITS, cpus=4, gil=True).run(15)
    assert run.changes == []


def test_simulated_long_computing_works_do_not_look_like_a_deadlock():
    run = Simulation([(0.0, 0.0, 30.0)] * 20, LIMITS, cpus=4).run(100)
    assert run.changes == []


def test_simulated_mixed_load_grows_until_the_processors_are_in_use():
    """Works that block three quarters of their time want four workers for each processor."""
    run = Simulation(mixed(8000, 0.15, 0.05), LIMITS, cpus=4).run(60)
    assert 14 <= run.workers <= 28
    assert run.turns() == 0
    assert len(run.done) > 0.95 * 60 * 4 / 0.05


def test_simulated_mixed_load_with_the_gil_has_one_processor():
    run = Simulation(mixed(8000, 0.15, 0.01), LIMITS, cpus=4, gil=True).run(30)
    assert 13 <= run.workers <= 28
    assert run.turns() == 0
    assert len(run.done) > 0.9 * 30 / 0.01


def test_simulated_tiny_works_do_not_grow():
    run = Simulation([(n * 0.05, 0.0, 0.0005) for n in range(200) for _ in range(100)], LIMITS, cpus=4).run(10)
    assert run.changes == []


def test_simulated_process_that_computes_elsewhere_does_not_hide_that_works_wait_for_nothing_else():
    """Something else in the process occupies half of the processors; the works block, and get their workers."""
    run = Simulation([(0.0, 0.2, 0.0)] * 2000, LIMITS, cpus=4, cpu_elsewhere=2.0).run(5)
    assert run.largest == 64


def test_simulated_bursts_far_apart_wake_it_from_rest_and_it_never_polls_there():
    arrivals = [(float(at), 0.5, 0.001) for at in (10, 510, 1010) for _ in range(50)]
    run = Simulation(arrivals, LIMITS, cpus=4).run(1500)
    assert len(run.done) == 150
    assert run.turns() <= 5
    assert run.looks < 120, "it looks while it has something to decide"
    assert (run.workers, run.look) == (1, None)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 40), st.sampled_from([0.0, 0.01, 0.3, 2.0]), st.sampled_from([0.0001, 0.01, 0.3])),
        max_size=60,
    ),
    st.integers(1, 20),
    st.sampled_from([Limits(1, 1, 1), Limits(2, 2, 9), Limits(1, 4, 64)]),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.booleans(),
)
def test_simulated_whatever_comes_all_is_done_and_it_returns_to_rest(arrivals, copies, limits, cpus, gil):
    run = Simulation(arrivals * copies, limits, cpus, gil).run(5000)
    assert len(run.done) == len(arrivals) * copies
    assert (run.workers, run.look) == (limits.minimum, None)
    spells = 1 + sum(copies for _ in arrivals)
    assert run.turns() <= spells
