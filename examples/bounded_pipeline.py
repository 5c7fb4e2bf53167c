"""A bounded pipeline: stages of threads with short queues between them, which ends well however it ends.

    python -m examples.bounded_pipeline                        2,000 blocks: make, compress, verify
    python -m examples.bounded_pipeline --maxsize 1 --threads 4
    python -m examples.bounded_pipeline --fail-at 700          a stage raises: what becomes of the rest?
    python -m examples.bounded_pipeline --blocks 100000000     press Ctrl-C: what was where?

The problem
-----------
Each stage takes items from one queue and puts results on the next. The queues are bounded, so that a slow stage holds
up the fast ones before it instead of drowning in items. That is the easy part. The hard part is the end: of several
threads in a stage, who closes the queue behind them? What if a stage raises while others sleep on full and on empty
queues? Where was each item when somebody pressed Ctrl-C?

What it shows
-------------
- *Shutting down is a state of the queue*, as with `queue.Queue` since Python 3.13, and on all versions here:
  `TQueue.shutdown` lets those who get take what is left, and then ends them with `ShutDown`.
- *The last one turns off the light.* Leaving a stage, and closing the queue behind it if one was the last
  (a `TLatch` knows), are one transaction.
- *Items are conserved.* To take an item from a queue is to have it in hand, in one transaction; to pass on the result
  and to have the hand free is another. So in every picture, at whatever moment: taken from the source = in a
  queue + in a hand + delivered + failed + left over.
- *A failure* closes the intake. What is in the pipeline flows on to its end and is delivered, and only then the error
  is raised. *Leaving early* (an exception in the `with` block, Ctrl-C) cuts all queues at one moment; what was in
  them, or in a hand that could not pass it on, is in `left`.

    with Pipeline(range(1000), Stage("square", square, threads=2), Stage("store", store)) as pipeline:
        for result in pipeline:
            ...

What is checked: with each result the balance above, in a picture of that moment; in the end, that each block came out
exactly once, intact. The program ends with code 1 if not, or if a stage failed.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from stm import TLatch, TQueue, TVar, atomically
from stm.collections import ShutDown

FREE: Final = object()  # what a hand holds that holds nothing


class StageFailed(Exception):
    """A stage raised. The cause is what it raised."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A function of one item, which so many threads call."""

    name: str
    work: Callable[[Any], Any]
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Failure:
    stage: str
    item: object
    error: BaseException


@dataclass(frozen=True, slots=True)
class Picture:
    """Where the items are at one moment: numbers, by queue and by stage."""

    taken: int
    queued: tuple[int, ...]
    in_hand: tuple[int, ...]
    delivered: int
    failed: int
    left: int

    @property
    def lost(self) -> int:
        """How many are nowhere: none."""
        return self.taken - sum(self.queued) - sum(self.in_hand) - self.delivered - self.failed - self.left


class Pipeline:
    """Items of `source` through all the stages, with at most `maxsize` in each queue.

    Entering starts the threads, and iterating yields the results, in no particular order. When all are through,
    `StageFailed` if a stage, or the source, raised. Leaving ends the threads: each finishes the item that it works on.
    """

    def __init__(self, source: Iterable[Any], *stages: Stage, maxsize: int = 8) -> None:
        if not stages:
            raise ValueError("a pipeline needs at least one stage")
        if maxsize < 1:
            raise ValueError(f"maxsize must be 1 or more, not {maxsize}: this is a bounded pipeline")
        for stage in stages:
            if stage.threads < 1:
                raise ValueError(f"{stage.name} needs at least one thread, not {stage.threads}")
        self._source = iter(source)
        self.stages = stages
        self.queues = [TQueue[Any](maxsize, name=f"before {stage.name}") for stage in stages]
        self.queues.append(TQueue(maxsize, name="results"))
        #: For the source and each stage, what its threads are working on.
        self.hands = [[TVar(FREE, name="the source's hand")]]
        self.hands += [[TVar(FREE, name=f"a hand of {stage.name}") for _ in range(stage.threads)] for stage in stages]
        self._present = [TLatch(len(hands)) for hands in self.hands]
        self.taken = TVar(0, name="taken")
        self.delivered = TVar(0, name="delivered")
        self.failures: TVar[tuple[Failure, ...]] = TVar((), name="failures")
        self._cut: TVar[tuple[tuple[str, object], ...]] = TVar((), name="cut")
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        jobs: list[tuple[Callable[..., None], int, TVar[object]]] = [(self._feed, 0, self.hands[0][0])]
        jobs += [(self._work, number, hand) for number, hands in enumerate(self.hands) if number for hand in hands]
        try:
            for job, number, hand in jobs:
                self._threads.append(threading.Thread(target=self._until_shut, args=(job, number, hand)))
                self._threads[-1].start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                result = self._deliver()
            except ShutDown:
                break
            yield result
        failures = self.failures.value
        if failures:
            first = failures[0]
            more = f" (and {len(failures) - 1} more)" if failures[1:] else ""
            raise StageFailed(f"{first.stage} failed on {first.item!r:.60}: {first.error!r}{more}") from first.error

    # The threads. Number 0 is the source, number n the nth stage: it takes from queue n-1 and puts on queue n.

    def _until_shut(self, job: Callable[..., None], number: int, hand: TVar[object]) -> None:
        try:
            job(number, hand)
        except ShutDown:
            pass
        finally:
            self._leave(number)

    @atomically
    def _leave(self, number: int) -> None:
        present = self._present[number]
        present.count_down()
        if not present.count:
            self.queues[number].shutdown()

    def _feed(self, number: int, hand: TVar[object]) -> None:
        while True:
            try:
                item = next(self._source)
            except StopIteration:
                return
            except BaseException as error:
                failure = Failure("the source", None, error)
                self.failures.update(lambda failures: (*failures, failure))  # noqa: B023
                return
            self._take_from_source(hand, item)
            self._pass_on(hand, item, self.queues[0])

    @atomically
    def _take_from_source(self, hand: TVar[object], item: object) -> None:
        self.taken.value += 1
        hand.value = item

    def _work(self, number: int, hand: TVar[object]) -> None:
        stage = self.stages[number - 1]
        while True:
            item = self._take(hand, self.queues[number - 1])
            try:
                result = stage.work(item)
            except BaseException as error:  # it is raised again, in the thread that iterates
                self._fail(hand, Failure(stage.name, item, error))
            else:
                self._pass_on(hand, result, self.queues[number])

    @atomically
    def _take(self, hand: TVar[object], queue: TQueue[Any]) -> object:
        hand.value = queue.get()
        return hand.value

    @atomically
    def _pass_on(self, hand: TVar[object], result: object, queue: TQueue[Any]) -> None:
        queue.put(result)
        hand.value = FREE

    @atomically
    def _fail(self, hand: TVar[object], failure: Failure) -> None:
        hand.value = FREE
        self.failures.value += (failure,)
        self.queues[0].shutdown()

    @atomically
    def _deliver(self) -> Any:
        result = self.queues[-1].get()
        self.delivered.value += 1
        return result

    # From outside.

    @atomically
    def stop(self) -> None:
        """Cut all the queues, at one moment. The threads end once they have finished what they have in hand."""
        for place, queue in zip(self._places(), self.queues, strict=True):
            self._cut.value += tuple((place, item) for item in queue.snapshot())
            queue.shutdown(immediate=True)

    def _places(self) -> list[str]:
        return [*(f"before {stage.name}" for stage in self.stages), "result"]

    @property
    @atomically
    def left(self) -> tuple[tuple[str, object], ...]:
        """What was still in the pipeline when it was stopped, and where: what has to be done to it yet."""
        places = ("before " + self.stages[0].name, *self._places())  # what the source holds is to go there
        in_hand = [(p, hand.value) for p, hands in zip(places, self.hands, strict=False) for hand in hands]
        return (*self._cut.value, *((place, item) for place, item in in_hand if item is not FREE))

    @atomically(read_only=True)
    def picture(self) -> Picture:
        return Picture(
            self.taken.value,
            tuple(queue.qsize() for queue in self.queues),
            tuple(sum(hand.value is not FREE for hand in hands) for hands in self.hands),
            self.delivered.value,
            sum(failure.stage != "the source" for failure in self.failures.value),
            len(self._cut.value),
        )


# ---------------------------------------------------------------------------------------------------------- the program


@dataclass(frozen=True, slots=True)
class Block:
    """A number, the checksum of what was made for it, and that, compressed or not."""

    number: int
    checksum: bytes
    data: bytes

    def __repr__(self) -> str:
        return f"block {self.number}"


def make(size: int) -> Callable[[int], Block]:
    def block(number: int) -> Block:
        words = random.Random(number).choices([b"transact", b"retry", b"commit", b"abort", b"wait"], k=size // 6)
        data = b" ".join(words)
        return Block(number, sha256(data).digest(), data)

    return block


def compress(fail_at: int | None) -> Callable[[Block], Block]:
    def compressed(block: Block) -> Block:
        if block.number == fail_at:
            raise OSError("no space left, as was asked for")
        return Block(block.number, block.checksum, zlib.compress(block.data))

    return compressed


def verify(block: Block) -> tuple[int, bool, int]:
    """The number, whether it is intact, and how many bytes it takes."""
    return block.number, sha256(zlib.decompress(block.data)).digest() == block.checksum, len(block.data)


def run(options: argparse.Namespace) -> int:
    """The whole program, once its arguments are known. Returns the exit code."""
    stages = (
        Stage("make", make(options.size), options.threads),
        Stage("compress", compress(options.fail_at), options.threads),
        Stage("verify", verify),
    )
    pipeline = Pipeline(range(options.blocks), *stages, maxsize=options.maxsize)
    came: Counter[int] = Counter()
    wrong: list[str] = []
    fullest = [0] * len(pipeline.queues)
    size, ended = 0, "all through"
    begun = time.perf_counter()
    try:
        print(f"{options.blocks:,} blocks, {options.threads} threads to make and to compress them", flush=True)
        with pipeline:
            for number, intact, length in pipeline:
                came[number] += 1
                size += length
                if not intact:
                    wrong.append(f"block {number} is damaged")
                picture = pipeline.picture()
                fullest = list(map(max, fullest, picture.queued))
                if picture.lost or max(picture.queued) > options.maxsize:
                    wrong.append(f"items don't add up: {picture}")
    except StageFailed as failed:
        ended = str(failed)
    except KeyboardInterrupt:
        ended = "interrupted"
    seconds = time.perf_counter() - begun
    picture = pipeline.picture()
    left = dict(Counter(place for place, _ in pipeline.left))
    print(f"{picture.delivered:,} blocks of {size:,} bytes in {seconds:.2f} s: {ended}")
    print(f"  {len(came) / seconds:,.0f} blocks a second; most that were seen in the queues:")
    places = [f"before {stage.name}" for stage in stages] + ["results"]
    print("  " + ", ".join(f"{most} {place}" for most, place in zip(fullest, places, strict=True)))
    print(
        f"  {picture.taken:,} taken, {picture.delivered:,} delivered, {picture.failed:,} failed, {left or 'none'} left"
    )
    # An interrupt can strike between the delivery of a result and its count here.
    if any(count != 1 for count in came.values()) or not 0 <= picture.delivered - len(came) <= (ended == "interrupted"):
        wrong.append("some blocks came more than once, or never")
    if picture.lost or (ended == "all through" and set(came) != set(range(options.blocks))):
        wrong.append(f"blocks are lost: {picture}")
    for each in wrong[:5]:
        print(f"BROKEN: {each}")
    if wrong:
        return 1
    print("In a picture with each result, and in the end, every block was in exactly one place.")
    return {"all through": 0, "interrupted": 130}.get(ended, 1)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")  # one line; argparse would put the usage before it


def whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most:,}, not {text!r}")
        return int(text)

    return number


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="bounded_pipeline", description="Stages of threads with short queues between them.")
    add = parser.add_argument
    add("--blocks", type=whole(1, 10**9), default=2000, metavar="N", help="default: %(default)s")
    add("--size", type=whole(6, 10**7), default=3000, metavar="BYTES", help="of a block (default: about %(default)s)")
    add("--maxsize", type=whole(1, 10**6), default=8, metavar="N", help="of each queue (default: %(default)s)")
    add("--threads", type=whole(1, 100), default=os.cpu_count() or 1, metavar="N", help="a stage (%(default)s)")
    add("--fail-at", type=whole(0, 10**9), default=None, metavar="BLOCK", help="let `compress` raise at this block")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's). Returns the exit code."""
    return run(arguments(argv))


if __name__ == "__main__":
    sys.exit(main())
