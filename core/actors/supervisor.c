/*
 * Supervisors: an actor whose children are told of here when they have ended, by a hook of their records, and which
 * stops them first when it stops itself. Nothing of it is called out of turn: ends and restarts come from the loop.
 */
#include <tram/supervisor.h>

#include <errno.h>

#include "core/actors/actor.h"
#include "core/base/invalid.h"

#define DEFAULT_RESTARTS  1
#define MOST_RESTARTS     65535
#define DEFAULT_PERIOD_NS UINT64_C(5000000000)

struct child {
    struct actor_holder holder; /* its actor; NULL: it does not run */
    struct supervisor *supervisor;
    tram_child as_given;
    bool over; /* a temporary one that has ended */
    bool due;  /* its start failed, and is to be tried again */
};

enum supervisor_state {
    SUPERVISOR_RUNS,
    SUPERVISOR_CLEARS, /* all children are stopped, to be started again once the last has ended */
    SUPERVISOR_ENDS,
};

struct supervisor {
    tram_actor actor;
    tram_loop *loop; /* also when the actor has none any more */
    size_t size;     /* of all of it */
    struct ready again;
    enum supervisor_state state;
    bool closing;
    bool starting; /* a child, by a call of the user's */
    tram_supervisor_strategy strategy;
    uint64_t period_ns;
    uint64_t *restarts; /* a ring of their times, behind the children */
    size_t max_restarts, restart_count, oldest;
    size_t awaited; /* children that have not ended yet, while it clears */
    size_t child_count;
    struct child children[];
};

static void stop_supervisor(struct supervisor *supervisor, int reason) {
    tram__actor_stop(supervisor->actor.record, reason);
}

static void report(const struct supervisor *supervisor, int code, const char *message, const struct child *child) {
    tram_error error = {.code = code, .operation = "supervisor", .detail = child ? child->as_given.name : NULL};
    tram_exception exception = {.message = message, .error = &error, .fd = -1};
    tram__report(supervisor->loop, &exception);
}

/* ---- Starting children ---- */

static void child_ended(struct actor_holder *holder, int reason);

static bool can_be_child(const struct supervisor *supervisor, const tram_actor *actor) {
    return actor && actor->loop == supervisor->loop && actor_alive(actor) && !actor->record->holder;
}

/*
 * Stops the last first, so that their ends come in this order: whose end takes its time, a task's or a supervisor's, is
 * awaited before the next one is stopped. True: no more need be awaited than what the ready queue has.
 */
static bool stop_children(struct supervisor *supervisor) {
    for (size_t i = supervisor->child_count; i-- > 0;) {
        const tram_actor *actor = supervisor->children[i].holder.actor;
        if (!actor)
            continue;
        tram__actor_stop(actor->record, TRAM_ECANCELLED);
        if (!actor_is_ending(actor->record))
            return false;
    }
    return true;
}

/* It was stopped: its own end follows that of its children. */
static void go_on_ending(struct supervisor *supervisor) {
    struct actor_record *record = supervisor->actor.record;
    if (!supervisor->starting && !actor_is_ending(record) && stop_children(supervisor))
        tram__actor_ended(record);
}

static int call_start(struct child *child) {
    struct supervisor *supervisor = child->supervisor;
    tram_actor *actor = NULL;
    supervisor->starting = true;
    supervisor->loop->in_callouts++; /* tram_supervisor_start() goes on with the loop */
    int status = child->as_given.start(supervisor->loop, child->as_given.arg, &actor);
    supervisor->loop->in_callouts--;
    supervisor->starting = false;
    if (status < 0)
        return status;
    if (!can_be_child(supervisor, actor))
        return TRAM_ETYPE;
    child->holder.actor = actor;
    actor->record->holder = &child->holder;
    return 0;
}

static int start_child(struct child *child) {
    TRAM_DCHECK(!child->holder.actor);
    child->due = false;
    int status = call_start(child);
    if (child->supervisor->state == SUPERVISOR_ENDS) /* the start has ended it */
        go_on_ending(child->supervisor);
    return status;
}

/* All that do not run, in order, up to one that fails: *ret_failed. */
static int start_all(struct supervisor *supervisor, struct child **ret_failed) {
    for (size_t i = 0; i < supervisor->child_count && supervisor->state != SUPERVISOR_ENDS; i++) {
        struct child *child = &supervisor->children[i];
        int status = child->over || child->holder.actor ? 0 : start_child(child);
        if (status) {
            *ret_failed = child;
            return status;
        }
    }
    return 0;
}

/* ---- Restarts ---- */

/* Counts one. False: there were too many within the period. */
static bool may_restart(struct supervisor *supervisor) {
    uint64_t now = tram__clock(supervisor->loop);
    size_t most = supervisor->max_restarts;
    while (supervisor->restart_count && now - supervisor->restarts[supervisor->oldest] > supervisor->period_ns) {
        supervisor->oldest = (supervisor->oldest + 1) % most;
        supervisor->restart_count--;
    }
    if (supervisor->restart_count == most)
        return false;
    supervisor->restarts[(supervisor->oldest + supervisor->restart_count++) % most] = now;
    return true;
}

static void again_run(tram_loop *loop, struct ready *ready);

/* Not at once: the loop does other things in between. */
static void try_again(struct child *child, int status) {
    struct supervisor *supervisor = child->supervisor;
    report(supervisor, status, "an actor could not be started again", child);
    if (supervisor->state == SUPERVISOR_ENDS)
        return;
    child->due = true;
    list_remove(&supervisor->again.link);
    supervisor->again.run = again_run;
    loop_ready(supervisor->loop, &supervisor->again);
}

static void restart_one(struct child *child) {
    int status = start_child(child);
    if (status)
        try_again(child, status);
}

/* All children have ended. */
static void restart_cleared(struct supervisor *supervisor) {
    struct child *failed;
    supervisor->state = SUPERVISOR_RUNS;
    if (supervisor->closing)
        return;
    int status = start_all(supervisor, &failed);
    if (status)
        try_again(failed, status);
}

static void restart_all(struct supervisor *supervisor) {
    supervisor->awaited = 0;
    for (size_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        child->over |= child->as_given.restart == TRAM_RESTART_TEMPORARY;
        child->due = false;
        supervisor->awaited += child->holder.actor != NULL;
    }
    if (!supervisor->awaited) {
        restart_cleared(supervisor);
        return;
    }
    supervisor->state = SUPERVISOR_CLEARS;
    stop_children(supervisor);
}

static void restart(struct child *child) {
    struct supervisor *supervisor = child->supervisor;
    if (supervisor->closing || supervisor->loop->closing)
        return;
    if (!may_restart(supervisor)) {
        report(supervisor, TRAM_ELIMIT, "a supervisor gave up", child);
        stop_supervisor(supervisor, TRAM_ECANCELLED);
    } else if (supervisor->strategy == TRAM_ONE_FOR_ALL) {
        restart_all(supervisor);
    } else {
        restart_one(child);
    }
}

static void again_run(tram_loop *loop, struct ready *ready) {
    struct supervisor *supervisor = container_of(ready, struct supervisor, again);
    (void)loop;
    for (size_t i = 0; i < supervisor->child_count && supervisor->state == SUPERVISOR_RUNS; i++) {
        struct child *child = &supervisor->children[i];
        bool due = child->due;
        child->due = false;
        if (due)
            restart(child);
    }
}

/* ---- Ends ---- */

static void child_ended(struct actor_holder *holder, int reason) {
    struct child *child = container_of(holder, struct child, holder);
    struct supervisor *supervisor = child->supervisor;
    tram_restart when = child->as_given.restart;
    if (supervisor->state == SUPERVISOR_ENDS) {
        go_on_ending(supervisor);
    } else if (supervisor->state == SUPERVISOR_CLEARS) {
        if (--supervisor->awaited == 0)
            restart_cleared(supervisor);
        else
            stop_children(supervisor);
    } else {
        if (when == TRAM_RESTART_TEMPORARY)
            child->over = true;
        else if (when == TRAM_RESTART_PERMANENT || (reason && reason != TRAM_ECANCELLED))
            restart(child);
    }
}

/* ---- The supervisor as an actor ---- */

static struct supervisor *supervisor_of(tram_actor *actor) {
    return (struct supervisor *)actor;
}

static bool stopping(tram_actor *actor) {
    struct supervisor *supervisor = supervisor_of(actor);
    supervisor->state = SUPERVISOR_ENDS;
    list_remove(&supervisor->again.link);
    return supervisor->starting || !stop_children(supervisor);
}

static int closing(tram_actor *actor) {
    supervisor_of(actor)->closing = true;
    return 0;
}

/* Children are there still only where the loop has closed, which ends actors one by one. */
static void stopped(tram_actor *actor, int reason) {
    struct supervisor *supervisor = supervisor_of(actor);
    (void)reason;
    for (size_t i = 0; i < supervisor->child_count; i++)
        if (supervisor->children[i].holder.actor)
            supervisor->children[i].holder.actor->record->holder = NULL;
    memory_put(&supervisor->loop->allocator, supervisor, supervisor->size);
}

static const tram_actor_ops supervisor_ops = {.closing = closing, .stopped = stopped};
static const struct actor_kind supervisor_kind = {.stopping = stopping};

static const char *invalid_option(const tram_supervisor_options *options) {
    if ((unsigned)options->strategy > TRAM_ONE_FOR_ALL)
        return "strategy";
    if (options->child_count && !options->children)
        return "children";
    for (size_t i = 0; i < options->child_count; i++) {
        if (!options->children[i].start)
            return "start";
        if ((unsigned)options->children[i].restart > TRAM_RESTART_TEMPORARY)
            return "restart";
    }
    return options->max_restarts > MOST_RESTARTS ? "max_restarts" : NULL;
}

static size_t restarts_of(const tram_supervisor_options *options) {
    if (options->max_restarts < 0)
        return 0;
    return options->max_restarts ? (size_t)options->max_restarts : DEFAULT_RESTARTS;
}

static struct supervisor *supervisor_new(tram_loop *loop, const tram_supervisor_options *options) {
    size_t most = restarts_of(options), count = options->child_count;
    size_t size = sizeof(struct supervisor) + count * sizeof(struct child) + most * sizeof(uint64_t);
    struct supervisor *supervisor = tram__memory_get_zero(&loop->allocator, size);
    if (!supervisor)
        return NULL;
    supervisor->actor.ops = &supervisor_ops;
    supervisor->loop = loop;
    supervisor->size = size;
    list_init(&supervisor->again.link);
    supervisor->strategy = options->strategy;
    supervisor->period_ns = options->period_ns ? options->period_ns : DEFAULT_PERIOD_NS;
    supervisor->max_restarts = most;
    supervisor->restarts = (uint64_t *)(void *)&supervisor->children[count];
    supervisor->child_count = count;
    for (size_t i = 0; i < count; i++)
        supervisor->children[i] =
            (struct child){.holder.ended = child_ended, .supervisor = supervisor, .as_given = options->children[i]};
    return supervisor;
}

int tram_supervisor_start(tram_loop *loop, const tram_supervisor_options *options, tram_actor **ret_actor) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    const char *invalid = !options ? "options" : !ret_actor ? "ret_actor" : invalid_option(options);
    if (invalid)
        return tram__invalid(invalid);
    struct supervisor *supervisor = supervisor_new(loop, options);
    if (!supervisor)
        return -ENOMEM;
    status = tram__actor_start(loop, &supervisor->actor, &supervisor_kind);
    if (status) {
        memory_put(&loop->allocator, supervisor, supervisor->size);
        return status;
    }
    struct child *failed;
    status = start_all(supervisor, &failed);
    if (status) /* it frees itself when the children have ended */
        stop_supervisor(supervisor, status);
    else
        *ret_actor = &supervisor->actor;
    return status;
}

tram_actor *tram_supervisor_child(const tram_actor *actor, size_t number) {
    if (!actor || actor->ops != &supervisor_ops || !actor->loop || loop_enter(actor->loop, __func__))
        return NULL;
    const struct supervisor *supervisor = (const struct supervisor *)actor;
    if (number >= supervisor->child_count)
        return NULL;
    tram_actor *child = supervisor->children[number].holder.actor;
    return child && actor_alive(child) ? child : NULL;
}
