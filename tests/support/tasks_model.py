#!/usr/bin/env python3
"""Random programs of tasks: made here, run by asyncio here and by tests/unit/test_tasks_model.c there, and compared.

Writes one program per line to standard output, as numbers, and reads one line of what happened in it from standard
input. A difference is shrunk to a small program and told on standard error; the exit code is then 1.

    tasks_model.py COUNT SEED

Time is virtual on both sides. Where the Python that runs this is older than 3.13, what 3.13 changed in Task.uncancel,
TaskGroup, timeout, wait_for, gather and Semaphore is restated below: that is the contract.
"""

import asyncio
import heapq
import random
import selectors
import sys
import warnings
from asyncio import tasks as asyncio_tasks

(YIELD, SLEEP, SPAWN, JOIN, CANCEL, CANCEL_SELF, FAIL, GROUP, GROUP_SPAWN, TIMEOUT, GATHER, WAIT, SHIELD, WAIT_FOR, CATCH,
 EVENT_WAIT, EVENT_SET, EVENT_CLEAR, LOCK, SEMAPHORE, PUT, GET, FINALLY, RETURN, AS_COMPLETED, BARRIER) = range(26)
CANCELLED, TIMED_OUT, MULTIPLE, STATE = -10, -11, -12, -13
EVENTS, LOCKS, QUEUES = 2, 2, 2


# ---- asyncio of 3.13 ----

class Task(asyncio_tasks._PyTask):
    def uncancel(self):
        left = super().uncancel()
        if left == 0:
            self._must_cancel = False
        return left


class Timeout(asyncio.Timeout):
    async def __aenter__(self):
        self._before = asyncio.current_task().cancelling()
        return await super().__aenter__()

    async def __aexit__(self, kind, error, traceback):
        if self._timeout_handler is not None:
            self._timeout_handler.cancel()
            self._timeout_handler = None
        expiring = asyncio.timeouts._State.EXPIRING
        if self._state is expiring:
            self._state = asyncio.timeouts._State.EXPIRED
            if self._task.uncancel() <= self._before and kind is not None and issubclass(kind, asyncio.CancelledError):
                raise TimeoutError from error
        else:
            self._state = asyncio.timeouts._State.EXITED


def timeout(delay):
    return Timeout(asyncio.get_running_loop().time() + delay)


class Ordered(dict):
    """A set that is gone through in the order of adding. A group has a set, and cancels its tasks in any order."""

    def add(self, item):
        self[item] = None

    def discard(self, item):
        self.pop(item, None)


class TaskGroup(asyncio.TaskGroup):
    def __init__(self):
        super().__init__()
        self._tasks = Ordered()

    async def __aexit__(self, kind, error, traceback):
        self._exiting = True
        cancelled = error if kind is not None and issubclass(kind, asyncio.CancelledError) else None
        if kind is not None and not self._aborting:
            self._abort()
        while self._tasks:
            if self._on_completed_fut is None:
                self._on_completed_fut = self._loop.create_future()
            try:
                await self._on_completed_fut
            except asyncio.CancelledError as new:
                if not self._aborting:
                    cancelled = new
                    self._abort()
            self._on_completed_fut = None
        if self._parent_cancel_requested and self._parent_task.uncancel() == 0:
            cancelled = None
        if cancelled is not None and not self._errors:
            raise cancelled
        if kind is not None and not issubclass(kind, asyncio.CancelledError):
            self._errors.append(error)
        if self._errors:
            if self._parent_task.cancelling():
                self._parent_task.uncancel()
                self._parent_task.cancel()
            raise BaseExceptionGroup("unhandled errors in a TaskGroup", self._errors) from None


async def wait_for(future, delay):
    if delay <= 0:
        if future.done():
            return future.result()
        await asyncio_tasks._cancel_and_wait(future, loop=asyncio.get_running_loop())
        try:
            return future.result()
        except asyncio.CancelledError as error:
            raise TimeoutError from error
    async with timeout(delay):
        return await future


def gather(children, keep_errors):
    loop = asyncio.get_running_loop()
    if not children:
        outer = loop.create_future()
        outer.set_result([])
        return outer
    finished = 0
    outer = None

    def done(child):
        nonlocal finished
        finished += 1
        if outer.done():
            if not child.cancelled():
                child.exception()
            return
        if not keep_errors:
            if child.cancelled():
                outer.set_exception(asyncio.CancelledError())
                return
            if child.exception() is not None:
                outer.set_exception(child.exception())
                return
        if finished == len(children):
            if outer._cancel_requested:
                outer.set_exception(asyncio.CancelledError())
            else:
                outer.set_result(None)

    outer = asyncio_tasks._GatheringFuture(children, loop=loop)
    ready = [child for child in children if child.done()]
    for child in children:
        if not child.done():
            child.add_done_callback(done)
    for child in ready:
        done(child)
    return outer


async def as_completed(children, delay):
    """Those that are done already come in the order given: asyncio has them in a set, so in any."""
    todo, done = list(children), asyncio.Queue()

    def completed(child):
        if child in todo:
            todo.remove(child)
            done.put_nowait(child)
            if not todo and timer is not None:
                timer.cancel()

    def time_is_over():
        for child in todo:
            child.remove_done_callback(completed)
            done.put_nowait(None)
        todo.clear()

    for child in children:
        child.add_done_callback(completed)
    timer = asyncio.get_running_loop().call_later(delay, time_is_over) if todo and delay >= 0 else None
    for _ in children:
        child = await done.get()
        if child is None:
            raise TimeoutError
        yield child


class Semaphore(asyncio.Semaphore):
    async def acquire(self):
        if not self.locked():
            self._value -= 1
            return True
        if self._waiters is None:
            import collections
            self._waiters = collections.deque()
        waiter = self._get_loop().create_future()
        self._waiters.append(waiter)
        try:
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._value += 1
            raise
        finally:
            while self._value > 0:
                if not self._wake():
                    break
        return True

    def _wake(self):
        for waiter in self._waiters or ():
            if not waiter.done():
                self._value -= 1
                waiter.set_result(True)
                return True
        return False

    def release(self):
        self._value += 1
        self._wake()


# ---- A loop whose time is virtual ----

class VirtualSelector(selectors.SelectSelector):
    loop = None

    def select(self, timeout=None):
        if timeout is None:
            self.loop.stop()  # nothing will ever happen again
        elif timeout > 0:
            self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.now = 0.0
        self.count = 0
        selector = VirtualSelector()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-6

    def time(self):
        return self.now

    def call_at(self, when, callback, *args, context=None):
        timer = Timer(when, callback, args, self, context)
        self.count += 1
        timer.number = self.count
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer


class Timer(asyncio.TimerHandle):
    """Equal deadlines in order of creation: rule L-14."""

    def __lt__(self, other):
        return (self._when, self.number) < (other._when, other.number)


# ---- Running a program ----

class Failure(Exception):
    def __init__(self, code):
        self.code = code


def code_of(error):
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    if isinstance(error, Failure):
        return -error.code
    if isinstance(error, BaseExceptionGroup):
        return code_of(error.exceptions[0]) if len(error.exceptions) == 1 else MULTIPLE
    if isinstance(error, RuntimeError):
        return STATE
    raise error


class Context:
    def __init__(self, number):
        self.number, self.group, self.result = number, None, None


class Run:
    """A program's tasks, and what happened in them."""

    def __init__(self, loop):
        self.loop, self.tasks, self.trace, self.over = loop, {}, [], False
        self.events = [asyncio.Event() for _ in range(EVENTS)]
        self.locks = [asyncio.Lock() for _ in range(LOCKS)]
        self.queues = [asyncio.Queue(size) for size in range(QUEUES)]
        self.semaphore = Semaphore(1)
        self.barrier = asyncio.Barrier(2)

    def note(self, context, what, result):
        self.trace.append(f"{context.number}.{what}:{result}")

    async def body(self, number, block):
        context = Context(number)
        await self.block(context, block)
        return context.result or 0

    async def block(self, context, block):
        for op in block:
            try:
                result = await self.op(context, op)
            except BaseException as error:
                self.note(context, op[0], code_of(error))
                raise
            self.note(context, op[0], result)
            if context.result is not None:
                return

    def there(self, numbers):
        return [self.tasks[number] for number in numbers if number in self.tasks]

    async def op(self, context, op):
        if self.over:
            raise GeneratorExit  # a coroutine that still waited is collected while another program runs
        kind, *given = op
        return await getattr(self, f"op_{kind}")(context, *given)

    async def op_0(self, context):
        await asyncio.sleep(0)
        return 0

    async def op_1(self, context, delay):
        await asyncio.sleep(delay)
        return 0

    async def op_2(self, context, number, block):
        self.tasks[number] = self.loop.create_task(self.body(number, block))
        return 0

    async def op_3(self, context, number):
        return await self.tasks[number] if number in self.tasks else 99

    async def op_4(self, context, number):
        return int(self.tasks[number].cancel()) if number in self.tasks else 99

    async def op_5(self, context):
        return int(asyncio.current_task().cancel())

    async def op_6(self, context, code):
        raise Failure(code)

    async def op_7(self, context, block):
        before = context.group
        try:
            async with TaskGroup() as context.group:
                await self.block(context, block)
        finally:
            context.group = before
        return 0

    async def op_8(self, context, number, block):
        if context.group is None:
            return await self.op_2(context, number, block)
        body = self.body(number, block)
        try:
            self.tasks[number] = context.group.create_task(body)
        except RuntimeError:
            body.close()
            raise
        return 0

    async def op_9(self, context, delay, block):
        async with timeout(delay):
            await self.block(context, block)
        return 0

    async def op_10(self, context, flags, numbers):
        await gather(self.there(numbers), bool(flags))
        return 0

    async def op_11(self, context, mode, delay, numbers):
        given = self.there(numbers)
        if not given:
            return 99
        modes = [asyncio.ALL_COMPLETED, asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION]
        done, _ = await asyncio.wait(given, timeout=None if delay < 0 else delay, return_when=modes[mode])
        return len(done)

    async def op_12(self, context, number):
        return await asyncio.shield(self.tasks[number]) if number in self.tasks else 99

    async def op_13(self, context, number, delay):
        return await wait_for(self.tasks[number], delay) if number in self.tasks else 99

    async def op_14(self, context, uncancel, block):
        try:
            await self.block(context, block)
        except BaseException as error:
            code = code_of(error)
            if uncancel and code == CANCELLED:
                asyncio.current_task().uncancel()
            return asyncio.current_task().cancelling() * 100 + code
        return asyncio.current_task().cancelling() * 100

    async def op_15(self, context, which):
        await self.events[which].wait()
        return 0

    async def op_16(self, context, which):
        self.events[which].set()
        return 0

    async def op_17(self, context, which):
        self.events[which].clear()
        return 0

    async def op_18(self, context, which, block):
        async with self.locks[which]:
            await self.block(context, block)
        return 0

    async def op_19(self, context, block):
        async with self.semaphore:
            await self.block(context, block)
        return 0

    async def op_20(self, context, which, value):
        await self.queues[which].put(value)
        return 0

    async def op_21(self, context, which):
        return await self.queues[which].get()

    async def op_22(self, context, block, last):
        try:
            await self.block(context, block)
        finally:
            result, context.result = context.result, None
            await self.block(context, last)
            if context.result is None:
                context.result = result
        return 0

    async def op_23(self, context, value):
        context.result = value
        return value

    async def op_24(self, context, delay, numbers):
        count = 0
        async for child in as_completed(self.there(numbers), delay):
            try:
                child.result()
            except BaseException as error:
                if code_of(error) in (CANCELLED, TIMED_OUT):
                    raise
            count += 1
        return count

    async def op_25(self, context):
        try:
            return await self.barrier.wait()
        except asyncio.BrokenBarrierError as error:
            raise RuntimeError from error


def state_of(task):
    if not task.done():
        return "pending"
    if task.cancelled():
        return "cancelled"
    return str(code_of(task.exception())) if task.exception() else f"={task.result()}"


def run_here(program):
    loop = VirtualLoop()
    loop.set_task_factory(lambda loop, coroutine, context=None: Task(coroutine, loop=loop))
    loop.set_exception_handler(lambda loop, context: None)
    asyncio.set_event_loop(loop)
    run = Run(loop)
    run.tasks[0] = loop.create_task(run.body(0, program))
    loop.run_forever()
    ends = [f"{number}={state_of(task)}" for number, task in sorted(run.tasks.items())]
    told = " ".join(run.trace + ends)
    run.over = True
    for task in run.tasks.values():
        task._log_destroy_pending = False
    loop._ready.clear()
    loop.close()
    return told


# ---- Making programs ----

class Maker:
    def __init__(self, seed):
        self.random, self.count, self.left = random.Random(seed), 0, 40

    def program(self):
        return self.block(0, 0, 6)

    def block(self, number, depth, most):
        return [self.op(number, depth) for _ in range(self.random.randint(1, most)) if self.left > 0]

    def larger(self, number):
        """Tasks with larger numbers, so that nobody waits for who waits for it."""
        return self.random.randint(number + 1, max(number + 1, self.count + 1))

    def some(self, number):
        return sorted({self.larger(number) for _ in range(self.random.randint(1, 4))})

    def body(self, depth):
        self.count += 1
        number = self.count
        return [number, self.block(number, depth + 1, 5)]

    def op(self, number, depth):
        choose = self.random
        self.left -= 1
        simple = [YIELD, SLEEP, SLEEP, JOIN, JOIN, CANCEL, CANCEL, CANCEL_SELF, FAIL, GATHER, WAIT, SHIELD, WAIT_FOR,
                  EVENT_WAIT, EVENT_SET, EVENT_CLEAR, PUT, GET, RETURN, AS_COMPLETED, BARRIER]
        blocks = [SPAWN, SPAWN, SPAWN, GROUP, GROUP, GROUP_SPAWN, GROUP_SPAWN, TIMEOUT, TIMEOUT, CATCH, CATCH, LOCK,
                  SEMAPHORE, FINALLY]
        kind = choose.choice(simple + blocks * 2 if depth < 5 else simple)
        short = lambda: self.block(number, depth + 1, 4)
        arguments = {
            YIELD: lambda: [], SLEEP: lambda: [choose.randint(0, 5)], SPAWN: lambda: self.body(depth),
            JOIN: lambda: [self.larger(number)], CANCEL: lambda: [choose.randint(0, self.count + 1)],
            CANCEL_SELF: lambda: [], FAIL: lambda: [choose.randint(1, 3)], GROUP: lambda: [short()],
            GROUP_SPAWN: lambda: self.body(depth), TIMEOUT: lambda: [choose.randint(0, 6), short()],
            GATHER: lambda: [choose.randint(0, 1), self.some(number)],
            WAIT: lambda: [choose.randint(0, 2), choose.randint(-1, 4), self.some(number)],
            SHIELD: lambda: [self.larger(number)], WAIT_FOR: lambda: [self.larger(number), choose.randint(0, 4)],
            CATCH: lambda: [choose.randint(0, 1), short()], EVENT_WAIT: lambda: [choose.randrange(EVENTS)],
            EVENT_SET: lambda: [choose.randrange(EVENTS)], EVENT_CLEAR: lambda: [choose.randrange(EVENTS)],
            LOCK: lambda: [choose.randrange(LOCKS), short()], SEMAPHORE: lambda: [short()],
            PUT: lambda: [choose.randrange(QUEUES), choose.randint(1, 9)], GET: lambda: [choose.randrange(QUEUES)],
            FINALLY: lambda: [short(), short()], RETURN: lambda: [choose.randint(1, 9)],
            AS_COMPLETED: lambda: [choose.randint(-1, 4), self.some(number)], BARRIER: lambda: [],
        }[kind]()
        return [kind, *arguments]


def flat(part):
    """Numbers: a list is its length in numbers, and then those."""
    if isinstance(part, int):
        return [part]
    numbers = [number for item in part for number in flat(item)]
    return [len(numbers), *numbers]


def flat_block(block):
    numbers = []
    for kind, *arguments in block:
        numbers.append(kind)
        for argument in arguments:
            if isinstance(argument, list) and (not argument or isinstance(argument[0], list)):
                inner = flat_block(argument)
                numbers += [len(inner), *inner]
            else:
                numbers += flat(argument)
    return numbers


def run_there(program):
    numbers = flat_block(program)
    print(len(numbers), *numbers, flush=True)
    return sys.stdin.readline().rstrip("\n")


# ---- Comparing ----

def differs(program):
    return run_here(program) != run_there(program)


def smaller(block):
    """Programs that are this one with something taken away."""
    for index, op in enumerate(block):
        yield block[:index] + block[index + 1:]
        for place, argument in enumerate(op):
            if isinstance(argument, list) and argument and isinstance(argument[0], list):
                if op[0] not in (SPAWN, GROUP_SPAWN):
                    yield block[:index] + argument + block[index + 1:]
                for less in smaller(argument):
                    yield block[:index] + [op[:place] + [less] + op[place + 1:]] + block[index + 1:]


def shrunk(program):
    shrinking = True
    while shrinking:
        shrinking = False
        for candidate in smaller(program):
            if differs(candidate):
                program, shrinking = candidate, True
                break
    return program


def main():
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    sys.unraisablehook = lambda _: None  # tasks that still wait when their program is over are only dropped
    warnings.simplefilter("ignore")
    for number in range(seed, seed + count):
        program = Maker(number).program()
        if differs(program):
            program = shrunk(program)
            print(f"seed {number} differs; in short {program}\n asyncio: {run_here(program)}\n    tram: "
                  f"{run_there(program)}", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
