/*
 * A worker: a loop, and the thread that runs it. Workers start together or not at all: each reports, and waits for the
 * verdict. Once a stop was asked for, worker_tick() looks in every tick how far the worker is in its life.
 */
#include "core/runtime/worker.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/runtime/runtime.h"
#include "core/runtime/stop.h"

/* Turns between closing the servers and closing the connections: one for connection_made, one for what is there. */
#define DRAIN_TICKS 2

static _Thread_local const tram_runtime *runtime_of_thread;

bool tram__runtime_is_worker(const tram_runtime *runtime) {
    return runtime_of_thread == runtime;
}

/* ---- Its life ---- */

/* Work ends by the end of the grace, or is not waited for. */
static bool is_drained(const struct worker *worker) {
    return worker->aborts ? !worker->loop->stats.connections_now : !worker->loop->awaited;
}

static const struct life_state states[] = {
    [WORKER_STARTING] = {"starting", {[WORKER_START] = WORKER_SERVES, [WORKER_LEAVE] = WORKER_ENDED}},
    [WORKER_SERVES] = {"serves", {[WORKER_STOP] = WORKER_DRAINING_INPUT, [WORKER_LEAVE] = WORKER_ENDED}},
    [WORKER_DRAINING_INPUT] = {"draining input", {[WORKER_DRAIN] = WORKER_DRAINS, [WORKER_LEAVE] = WORKER_ENDED}},
    [WORKER_DRAINS] = {"drains", {[WORKER_DRAIN_DONE] = WORKER_DRAINED, [WORKER_LEAVE] = WORKER_ENDED}},
    [WORKER_DRAINED] = {"drained", {[WORKER_CLOSE] = WORKER_CLOSES, [WORKER_LEAVE] = WORKER_ENDED}},
    [WORKER_CLOSES] = {"closes", {[WORKER_CLOSE_DONE] = WORKER_CLOSED, [WORKER_LEAVE] = WORKER_ENDED}},
    [WORKER_CLOSED] = {"closed", {[WORKER_EXIT] = WORKER_EXITING, [WORKER_LEAVE] = WORKER_ENDED}},
    [WORKER_EXITING] = {"exiting", {[WORKER_LEAVE] = WORKER_ENDED}},
    [WORKER_ENDED] = {.name = "ended"},
};

static void validate(const void *object) {
    const struct worker *worker = object;
    TRAM_ASSERT(worker->life != WORKER_DRAINED || is_drained(worker));
    TRAM_ASSERT(worker->life != WORKER_CLOSED || !worker->loop->stats.connections_now);
    TRAM_ASSERT(worker->life != WORKER_CLOSED || !worker->loop->unfinished);
}

static const struct life_table life = {.name = "worker", .states = states, .validate = validate};

static void move(struct worker *worker, enum worker_move move) {
    tram__life_move(&life, &worker->life, move, worker);
}

/* ---- Its end ---- */

static bool all_reached(const struct worker *worker, enum worker_life phase) {
    const tram_runtime *runtime = worker->runtime;
    return worker->alone || atomic_load(&runtime->reached[phase]) == runtime->count;
}

/*
 * Tells how far this worker is; the last one to come as far wakes the others. What is furthest is counted first: who
 * finds that all drain finds as well who of them had nothing to drain.
 */
static void tell(struct worker *worker) {
    tram_runtime *runtime = worker->runtime;
    bool last = false;
    for (unsigned phase = worker->life; phase > worker->told; phase--)
        last |= atomic_fetch_add(&runtime->reached[phase], 1) + 1 == runtime->count;
    worker->told = worker->life;
    for (unsigned i = 0; last && i < runtime->count; i++)
        mailbox_control(runtime->workers[i].mailbox);
}

static void end_all(struct worker *worker, enum shutdown_mode ending) {
    worker->connections = worker->loop->stats.connections;
    tram__loop_end_all(worker->loop, ending);
}

static void turn_run(tram_loop *loop, struct ready *ready) {
    (void)loop;
    (void)ready; /* that a turn comes without sleeping is all */
}

static void take_a_turn(struct worker *worker) {
    worker->turn.run = turn_run;
    loop_ready(worker->loop, &worker->turn);
}

/* Who is connected to the parts, as much as fits into a line. */
static void describe_parts(struct worker *worker, char *text, size_t size) {
    struct runtime_part *part = NULL;
    size_t used = 0;
    while ((part = tram__runtime_next_part(worker->runtime, part))) {
        if (!part->ops->describe || size - used <= 3)
            continue;
        const char *gap = used ? ", " : ": ";
        part->ops->describe(part, worker->index, text + used + 2, size - used - 2);
        if (text[used + 2])
            memcpy(text + used, gap, 2);
        used += text[used + 2] ? 2 + strlen(text + used + 2) : 0;
        text[used] = '\0';
    }
}

/* Another worker is stuck in a callback, for example. */
static void others_late(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    container_of(deadline, struct worker, grace)->alone = true;
}

/*
 * Resets what is left. What was not asked to end before, since connections could need it, gets the chance to end in
 * order.
 */
static void abort_all(struct worker *worker) {
    char who[512] = "";
    uint64_t before = worker->loop->cut;
    deadline_cancel(worker->loop, &worker->grace);
    worker->grace.expire = others_late;
    worker->alone = tram__deadline_start_after(worker->loop, &worker->grace, TRAM_GRACE_REST_NS) != 0;
    worker->aborts = true;
    if (worker->life < WORKER_CLOSES)
        end_all(worker, IO_SHUTDOWN_CLOSE);
    describe_parts(worker, who, sizeof who);
    end_all(worker, IO_SHUTDOWN_ABORT);
    if (worker->loop->cut != before)
        tram__log(worker->loop, TRAM_LOG_WARNING, "worker %u: the grace period is over, %llu connections are aborted%s",
                  worker->index, (unsigned long long)(worker->loop->cut - before), who);
}

static void grace_expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    abort_all(container_of(deadline, struct worker, grace));
}

/* Asks the connections that are served to end. Those that have nothing to do are gone in the next tick. */
static void drain(struct worker *worker) {
    const tram_runtime *runtime = worker->runtime;
    tram_loop *loop = worker->loop;
    uint64_t grace_ns = runtime->options.grace_ns ? runtime->options.grace_ns : TRAM_GRACE_NS;
    loop->end_ns = time_after(tram__clock(loop), grace_ns);
    move(worker, WORKER_DRAIN);
    end_all(worker, IO_SHUTDOWN_DRAIN);
    worker->grace.expire = grace_expired;
    if (loop->end_ns != TRAM_FOREVER && tram__deadline_start(loop, &worker->grace, loop->end_ns))
        abort_all(worker);
}

/* Whoever made a connection since all were asked to end has not heard of it. */
static void ask_again(struct worker *worker) {
    if (worker->life < WORKER_DRAINS || worker->loop->stats.connections == worker->connections)
        return;
    end_all(worker, worker->aborts                  ? IO_SHUTDOWN_ABORT
                    : worker->life >= WORKER_CLOSES ? IO_SHUTDOWN_CLOSE
                                                    : IO_SHUTDOWN_DRAIN);
}

static bool parts_expect(struct worker *worker) {
    struct runtime_part *part = NULL;
    bool expects = false;
    while ((part = tram__runtime_next_part(worker->runtime, part)))
        if (!expects && part->ops->expects)
            expects = part->ops->expects(part, worker->index);
    return expects;
}

/* True: what clients had sent by the end of accepting was delivered. */
static bool input_drained(struct worker *worker) {
    if (parts_expect(worker))
        worker->turns = DRAIN_TICKS;
    if (worker->turns == 0)
        return true;
    worker->turns--;
    take_a_turn(worker);
    return false;
}

/*
 * Nothing is left to do here but what connections of other workers want. As long as it is not known that there are any,
 * calls that were posted wait: there may be many, and a stop does not wait behind them.
 */
static void wait_for_others(struct worker *worker, enum worker_life wanted) {
    tram_loop *loop = worker->loop;
    const struct timespec pause = {.tv_nsec = 100000};
    bool serves = loop->stats.connections_now || all_reached(worker, wanted);
    loop->mail_limit = serves ? TRAM_MAIL_WHILE_ENDING : 0;
    if (!serves && !mailbox_empty(loop->mailbox))
        nanosleep(&pause, NULL); /* the loop does not sleep while there is mail */
}

/* Connections may have needed it, and none is left. */
static bool rest_is_closed(struct worker *worker) {
    tram_loop *loop = worker->loop;
    if (loop->stats.connections_now)
        return false;
    if (!loop->unfinished)
        return true;
    if (!worker->aborts)
        abort_all(worker); /* no connection needs it any more, so it is asked to end at once */
    else
        end_all(worker, IO_SHUTDOWN_ABORT); /* there may be new ones */
    return false;
}

/* Called at the end of every tick once a stop was asked for. Each phase may be over as soon as it begins. */
static void worker_tick(tram_loop *loop, void *arg) {
    struct worker *worker = arg;
    tram_runtime *runtime = worker->runtime;
    if (worker->life == WORKER_EXITING) {
        loop->on_wake = NULL;
        tram_loop_stop(loop);
        return;
    }
    if (worker->life == WORKER_DRAINING_INPUT) {
        if (!input_drained(worker))
            return;
        drain(worker);
    }
    if (!worker->aborts && atomic_load_explicit(&runtime->asked, memory_order_relaxed) == ASKED_AGAIN)
        abort_all(worker);
    ask_again(worker);
    if (worker->life == WORKER_DRAINS && is_drained(worker))
        move(worker, WORKER_DRAIN_DONE);
    tell(worker);
    if (worker->life == WORKER_DRAINED) {
        wait_for_others(worker, WORKER_DRAINS);
        if (!all_reached(worker, WORKER_DRAINED))
            return;
        move(worker, WORKER_CLOSE);
        end_all(worker, worker->aborts ? IO_SHUTDOWN_ABORT : IO_SHUTDOWN_CLOSE);
    }
    if (worker->life == WORKER_CLOSES && rest_is_closed(worker))
        move(worker, WORKER_CLOSE_DONE);
    tell(worker);
    if (worker->life == WORKER_CLOSED) {
        wait_for_others(worker, WORKER_CLOSED);
        if (!all_reached(worker, WORKER_CLOSED))
            return;
        deadline_cancel(loop, &worker->grace);
        move(worker, WORKER_EXIT);
        take_a_turn(worker);
    }
}

/*
 * A stop was asked for, or all workers are as far as this one. Once the worker ends, all is looked at in worker_tick(),
 * and mail comes in small portions: control never waits for long behind it.
 */
static void worker_control(tram_loop *loop, void *arg) {
    struct worker *worker = arg;
    if (worker->life != WORKER_SERVES || !atomic_load_explicit(&worker->runtime->asked, memory_order_relaxed))
        return;
    move(worker, WORKER_STOP);
    worker->turns = DRAIN_TICKS;
    loop->mail_limit = TRAM_MAIL_WHILE_ENDING;
    loop->on_wake = worker_tick;
    end_all(worker, IO_SHUTDOWN_STOP);
}

/* ---- Its thread ---- */

static int start_parts(struct worker *worker) {
    struct runtime_part *part = NULL;
    int status = 0;
    while ((part = tram__runtime_next_part(worker->runtime, part)))
        if (!status && !part->late)
            status = part->ops->start(part, worker->index, worker->loop);
    return status;
}

/* Other threads read the state, but what the user writes meanwhile is not theirs to see. */
static int call_user(struct worker *worker, tram_worker_function function) {
    tram_runtime *runtime = worker->runtime;
    void *state = atomic_load_explicit(&worker->state, memory_order_relaxed);
    int status = function(runtime, worker->index, worker->loop, &state, runtime->options.arg);
    atomic_store_explicit(&worker->state, state, memory_order_release);
    return status;
}

static int worker_start(struct worker *worker) {
    tram_runtime *runtime = worker->runtime;
    const tram_runtime_options *options = &runtime->options;
    int status = options->start ? call_user(worker, options->start) : 0;
    if (status < 0)
        return status;
    move(worker, WORKER_START);
    status = start_parts(worker);
    return status < 0 || worker->index ? status : tram__runtime_handle_signals(runtime);
}

/* Says that this worker is as far as `count` tells, and waits, where all of them end together, until all are. */
static void meet(tram_runtime *runtime, unsigned *count, bool together) {
    pthread_mutex_lock(&runtime->lock);
    ++*count;
    pthread_cond_broadcast(&runtime->changed);
    while (together && *count < runtime->count)
        pthread_cond_wait(&runtime->changed, &runtime->lock);
    pthread_mutex_unlock(&runtime->lock);
}

/*
 * The order of G-4: the loops have run out, then `stop` on each worker, then the loops close; so that signals have
 * their handler until then. A worker whose loop the user stopped leaves alone.
 */
static void worker_end(struct worker *worker, bool ran) {
    tram_runtime *runtime = worker->runtime;
    const tram_runtime_options *options = &runtime->options;
    bool together = ran && !worker->alone && atomic_load_explicit(&runtime->asked, memory_order_relaxed);
    bool started = worker->life != WORKER_STARTING;
    worker->loop->on_wake = NULL;
    deadline_cancel(worker->loop, &worker->grace);
    move(worker, WORKER_LEAVE);
    tell(worker);
    meet(runtime, &runtime->ran_out, together);
    if (started && options->stop)
        call_user(worker, options->stop);
    struct runtime_part *part = NULL;
    while ((part = tram__runtime_next_part(runtime, part)))
        part->ops->stop(part, worker->index);
    meet(runtime, &runtime->stopped, together);
    tram_loop_close(worker->loop);
}

/* Reports how the start went and waits for the others. True: go. */
static bool await_verdict(struct worker *worker, int status) {
    tram_runtime *runtime = worker->runtime;
    pthread_mutex_lock(&runtime->lock);
    worker->status = status;
    runtime->reported++;
    pthread_cond_broadcast(&runtime->changed);
    while (runtime->state == RUNTIME_STARTS)
        pthread_cond_wait(&runtime->changed, &runtime->lock);
    bool go = runtime->state == RUNTIME_RUNS;
    pthread_mutex_unlock(&runtime->lock);
    return go;
}

static void *worker_main(void *arg) {
    struct worker *worker = arg;
    char name[16], number[12]; /* the kernel keeps 15 characters: the number matters more than the name */
    int digits = snprintf(number, sizeof number, "-%u", worker->index % TRAM_WORKERS_MAX);
    size_t room = sizeof name - 1 - (size_t)digits, length = strnlen(worker->runtime->name, room);
    memcpy(name, worker->runtime->name, length);
    memcpy(name + length, number, (size_t)digits + 1);
    pthread_setname_np(pthread_self(), name);
    runtime_of_thread = worker->runtime;
    bool go = await_verdict(worker, worker_start(worker));
    if (go)
        tram_loop_run_forever(worker->loop);
    worker_end(worker, go);
    runtime_of_thread = NULL;
    return NULL;
}

/* Signals are the host's affair; only what the runtime was asked to handle may interrupt a worker. */
static void worker_signals(const struct worker *worker, sigset_t *ret_blocked) {
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigfillset(ret_blocked);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(ret_blocked, own[i]);
    if (worker->runtime->options.handle_signals && worker->index == 0) {
        sigdelset(ret_blocked, SIGTERM);
        sigdelset(ret_blocked, SIGINT);
    }
}

/* The `index`-th CPU of the mask, going round. */
static bool pick_cpu(unsigned index, cpu_set_t *ret_cpu) {
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) < 0 || CPU_COUNT(&mask) == 0)
        return false;
    unsigned skip = index % (unsigned)CPU_COUNT(&mask);
    CPU_ZERO(ret_cpu);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &mask) && skip-- == 0) {
            CPU_SET(cpu, ret_cpu);
            break;
        }
    return true;
}

int tram__worker_create_thread(struct worker *worker) {
    const tram_runtime_options *options = &worker->runtime->options;
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error)
        return -error;
    sigset_t blocked;
    cpu_set_t cpu;
    worker_signals(worker, &blocked);
    error = pthread_attr_setsigmask_np(&attributes, &blocked);
    if (!error && options->stack_size)
        error = pthread_attr_setstacksize(&attributes, options->stack_size);
    if (!error && options->pin && pick_cpu(worker->index, &cpu))
        error = pthread_attr_setaffinity_np(&attributes, sizeof cpu, &cpu);
    if (!error)
        error = pthread_create(&worker->thread, &attributes, worker_main, worker);
    pthread_attr_destroy(&attributes);
    worker->joinable = error == 0;
    return -error;
}

/* ---- Making and freeing ---- */

int tram__worker_open(struct worker *worker, const tram_loop_options *options) {
    int status = tram_loop_new(options, &worker->loop);
    if (status)
        return status;
    worker->mailbox = tram__mailbox_hold(worker->loop->mailbox);
    worker->loop->on_control = worker_control;
    worker->loop->worker = worker;
    worker->life = WORKER_STARTING;
    worker->loop->shared_executor = worker->runtime->executor;
    return 0;
}

void tram__worker_free(struct worker *worker) {
    tram_loop_free(worker->loop);
    if (worker->mailbox)
        tram__mailbox_release(worker->mailbox);
    if (runtime_of_thread == worker->runtime)
        runtime_of_thread = NULL; /* in a child that was forked on a worker */
}
