"""`stm.aio` under exceptions that strike at every point at which CPython could deliver a signal."""

import asyncio
import threading

import pytest

from stm import TVar, aio, check
from stm.clock import clock
from tests import injector as injector_module
from tests.support import PATIENCE, elsewhere


class Bolt(Exception):
    """Out of the blue; asyncio swallows it in callbacks."""


class Injector(injector_module.Injector):
    """Strikes either within the functions that the loop calls when a bell has rung, or anywhere else."""

    ringing = False

    def arrive(self, code, offset):
        rings = code in (aio.Bell._answer.__code__, aio.Bell._arm.__code__, aio._resolve.__code__)
        if rings is not self.ringing or self.paused or self.struck or threading.get_ident() != self.thread:
            return
        if offset not in injector_module.points(code):
            return
        if self.count == self.at:
            self.struck = True
            raise Bolt(f"{code.co_qualname}, offset {offset}")
        self.count += 1


class RingingInjector(Injector):
    ringing = True


async def sleepers(count):
    while len(clock.sleepers) != count:
        await asyncio.sleep(0)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # (the same, if struck in between)
def test_a_wait_leaves_nothing_wherever_an_exception_strikes(monkeypatch):
    monkeypatch.setattr(injector_module, "Injector", Injector)

    def trial(at):
        with asyncio.Runner() as runner:
            x = TVar(0)

            def wake():
                try:
                    x.set(1)
                except Bolt:
                    x.set(1)

            async def wait():
                asyncio.get_running_loop().call_soon(wake)
                await aio.run(lambda: check(x.value), timeout=PATIENCE)

            async def wait_again():
                task = asyncio.create_task(aio.run(lambda: check(x.value < 0)))
                await sleepers(1)
                x.set(-1)
                await asyncio.wait_for(task, PATIENCE)

            runner.run(asyncio.sleep(0))
            with injector_module.injected(at) as injector:
                try:
                    runner.run(wait())
                except Bolt:
                    pass
            assert not clock.lock._is_owned()
            assert not clock.sleepers
            assert not x._waiters
            x.set(0)
            elsewhere(x.set, 1)  # others can commit
            runner.run(wait_again())
            assert not aio._bells
        return injector

    count = trial(None).count
    assert count > 50
    for at in range(count):
        trial(at)


def test_everybody_wakes_wherever_an_exception_strikes_the_answer_to_a_bell(monkeypatch):
    monkeypatch.setattr(injector_module, "Injector", RingingInjector)

    def trial(at):
        x = TVar(0)

        async def main():
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
            tasks = [asyncio.create_task(aio.run(lambda: check(x.value))) for _ in range(3)]
            await sleepers(3)
            with injector_module.injected(at) as injector:
                x.set(1)
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*tasks)
            return injector

        return asyncio.run(main())

    count = trial(None).count
    assert count > 5
    for at in range(count):
        assert trial(at).struck
