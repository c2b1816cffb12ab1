#include "load/worker.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* So many failures and no success: the target is not there, and waiting for more time-outs tells nothing. */
enum { REFUSALS_ENOUGH = 16 };

static uint64_t thread_cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t larger(uint64_t left, uint64_t right) {
    return left > right ? left : right;
}

/* ---- Opening ---- */

static void check_ended(load_worker *self) {
    if (self->shard.phase == LOAD_ENDING && self->shard.busy == 0 && !self->ended) {
        self->ended = true;
        self->events->ended(self);
    }
}

static bool target_is_dead(const load_worker *self) {
    return self->alive == 0 && self->refusals >= REFUSALS_ENOUGH;
}

static void open_more(load_worker *self) {
    load_shard *shard = &self->shard;
    while (shard->phase == LOAD_OPENING && self->next < self->count && self->opening < self->opening_limit &&
           !target_is_dead(self)) {
        /* Until the name is resolved, one goes ahead. */
        if (!shard->resolved && self->refusals == 0 && self->opening > 0) {
            break;
        }
        load_connection *connection = &self->connections[self->next++];
        connection->opening = true;
        self->opening++;
        load_connection_open(connection);
    }
    if (self->opening == 0 && shard->phase == LOAD_OPENING) {
        shard->phase = LOAD_OPENED;
        self->events->opened(self);
    }
}

static void connection_opened(load_worker *self, load_connection *connection) {
    connection->opening = false;
    self->opening--;
    if (connection->usable) {
        self->alive++;
    } else {
        self->refusals++;
    }
    open_more(self);
}

static int retry_connection(tram_loop *loop, void *arg) {
    load_connection *connection = arg;
    if (load_connection_is_idle(connection)) {
        load_connection_advance(connection, tram_loop_time(loop));
    }
    return 0;
}

/* The place of a connection that ended is free for the next one. */
static void refill(load_worker *self, load_connection *connection) {
    tram_loop *loop = self->shard.loop;
    if (connection->failed &&
        tram_loop_call_later(loop, LOAD_RETRY_NS, retry_connection, connection, NULL, NULL) == 0) {
        return;
    }
    load_connection_advance(connection, tram_loop_time(loop));
}

static void connection_lost(load_worker *self) {
    self->alive--;
    if (self->alive == 0 && self->shard.phase == LOAD_RUNNING) {
        self->events->barren(self);
    }
}

static void connection_changed(load_connection *connection) {
    load_worker *self = (load_worker *)connection->shard;
    bool idle = load_connection_is_idle(connection);
    if (connection->opening) {
        if (self->shard.phase == LOAD_OPENING) {
            connection_opened(self, connection);
        }
    } else if (idle && self->shard.plan->churn) {
        if (self->shard.phase == LOAD_RUNNING) {
            refill(self, connection);
        }
    } else if (idle && self->shard.phase != LOAD_ENDING) {
        connection_lost(self);
    }
    check_ended(self);
}

static int open_first(tram_loop *loop, void *arg) {
    (void)loop;
    load_worker *self = arg;
    if (self->shard.phase == LOAD_OPENING) {
        open_more(self);
    }
    return 0;
}

int load_worker_open(load_worker *self, tram_loop *loop) {
    self->shard.loop = loop;
    return tram_loop_call_soon(loop, open_first, self, NULL, NULL);
}

/* ---- Running ---- */

/* Lets the connections send whose turn came between two counts of due requests. */
static void send_due(load_worker *self, uint64_t old_due, uint64_t now_ns) {
    load_shard *shard = &self->shard;
    uint64_t fresh = shard->due - old_due;
    uint64_t touched = fresh < shard->turns ? fresh : shard->turns;
    uint64_t turn = shard->turns > 0 ? old_due % shard->turns : 0;
    for (uint64_t i = 0; i < touched; i++) {
        load_connection_advance(self->dealt[turn], now_ns);
        turn = turn + 1 < shard->turns ? turn + 1 : 0;
    }
}

/* The schedule knows no end: this is the count of what is due and before the end. */
static uint64_t due_at(const load_shard *shard, uint64_t now_ns) {
    uint64_t last_ns = shard->measure_until_ns - 1;
    return shard->turns == 0 ? 0 : schedule_count(&shard->schedule, now_ns < last_ns ? now_ns : last_ns);
}

static void keep_schedule(load_worker *self, uint64_t now_ns) {
    load_shard *shard = &self->shard;
    uint64_t old_due = shard->due;
    /* An interrupt may move the end to before the last look at the clock: what was due stays due. */
    shard->due = larger(old_due, due_at(shard, now_ns));
    uint64_t overdue = due_at(shard, now_ns - LOAD_LATE_NS);
    uint64_t unmeasured = due_at(shard, shard->measure_from_ns - 1);
    uint64_t from = larger(old_due, unmeasured);
    if (overdue > from) {
        shard->tally.late += overdue - from;
    }
    send_due(self, old_due, now_ns);
}

static int schedule_tick(tram_loop *loop, void *arg) {
    load_worker *self = arg;
    load_shard *shard = &self->shard;
    if (shard->phase != LOAD_RUNNING) {
        return 0;
    }
    keep_schedule(self, tram_loop_time(loop));
    uint64_t next_ns = schedule_time(&shard->schedule, shard->due);
    if (next_ns >= shard->measure_until_ns) {
        return 0;
    }
    return tram_loop_call_at(loop, next_ns, schedule_tick, self, NULL, NULL);
}

static int live_tick(tram_loop *loop, void *arg) {
    load_worker *self = arg;
    load_shard *shard = &self->shard;
    if (shard->phase == LOAD_ENDING) {
        return 0;
    }
    load_live_add(self->live, shard->interval, shard->in_flight, load_tally_error_count(&shard->tally));
    self->live_ns += LOAD_LIVE_PERIOD_NS;
    return tram_loop_call_at(loop, self->live_ns, live_tick, self, NULL, NULL);
}

static void deal_turns(load_worker *self) {
    load_shard *shard = &self->shard;
    for (uint64_t i = 0; i < self->count; i++) {
        load_connection *connection = &self->connections[i];
        if (connection->usable) {
            connection->turn = shard->turns;
            self->dealt[shard->turns++] = connection;
        }
    }
}

static int start_load(tram_loop *loop, void *arg) {
    load_worker *self = arg;
    load_shard *shard = &self->shard;
    if (shard->phase != LOAD_OPENED) {
        return 0;
    }
    shard->phase = LOAD_RUNNING;
    if (self->alive == 0) {
        self->events->barren(self);
        return 0;
    }
    if (load_plan_is_open(shard->plan)) {
        return schedule_tick(loop, self);
    }
    for (uint64_t i = 0; i < shard->turns; i++) {
        load_connection_advance(self->dealt[i], tram_loop_time(loop));
    }
    return 0;
}

static int start_measuring(tram_loop *loop, void *arg) {
    (void)loop;
    load_worker *self = arg;
    self->cpu_from_ns = thread_cpu_ns();
    return 0;
}

static int planned_end(tram_loop *loop, void *arg) {
    (void)loop;
    load_worker *self = arg;
    load_worker_end(self, self->shard.measure_until_ns);
    return 0;
}

void load_worker_begin(load_worker *self, const load_start *start) {
    load_shard *shard = &self->shard;
    const load_plan *plan = shard->plan;
    if (shard->phase != LOAD_OPENED) {
        return; /* interrupted */
    }
    self->start_ns = start->start_ns;
    shard->measure_from_ns = start->start_ns + (uint64_t)(plan->warmup_s * 1e9);
    shard->measure_until_ns = shard->measure_from_ns + (uint64_t)(plan->duration_s * 1e9);
    deal_turns(self);
    if (load_plan_is_open(plan) && shard->turns > 0) {
        double rate = plan->rate * (double)shard->turns / (double)start->usable;
        shard->schedule = (schedule){.start_ns = start->start_ns, .period_ns = 1e9 / rate, .phase = start->phase};
    }
    tram_loop *loop = shard->loop;
    int code = tram_loop_call_at(loop, start->start_ns, start_load, self, NULL, NULL);
    if (code == 0) {
        code = tram_loop_call_at(loop, shard->measure_from_ns, start_measuring, self, NULL, NULL);
    }
    if (code == 0) {
        code = tram_loop_call_at(loop, shard->measure_until_ns, planned_end, self, NULL, NULL);
    }
    if (code == 0 && self->live != NULL) {
        self->live_ns = start->start_ns + LOAD_LIVE_PERIOD_NS;
        code = tram_loop_call_at(loop, self->live_ns, live_tick, self, NULL, NULL);
    }
    if (code < 0) {
        load_worker_end(self, start->start_ns);
    }
}

/* ---- Ending ---- */

/* What was due while it was measured, and never sent. */
static void count_missed(load_worker *self) {
    load_shard *shard = &self->shard;
    uint64_t unmeasured = due_at(shard, shard->measure_from_ns - 1);
    shard->tally.scheduled = shard->due - unmeasured;
    for (uint64_t turn = 0; turn < shard->turns; turn++) {
        uint64_t due = schedule_share(shard->due, turn, shard->turns);
        uint64_t before = schedule_share(unmeasured, turn, shard->turns);
        uint64_t sent = self->dealt[turn]->issued;
        shard->tally.missed += due - larger(sent, before);
    }
}

static void stop_measuring(load_worker *self, uint64_t until_ns) {
    load_shard *shard = &self->shard;
    shard->measure_until_ns = until_ns;
    if (shard->phase != LOAD_RUNNING || until_ns <= shard->measure_from_ns) {
        shard->measure_from_ns = until_ns;
        return;
    }
    if (load_plan_is_open(shard->plan)) {
        keep_schedule(self, tram_loop_time(shard->loop));
        count_missed(self);
    }
    shard->tally.duration_s = (double)(until_ns - shard->measure_from_ns) / 1e9;
    shard->tally.cpu_s = (double)(thread_cpu_ns() - self->cpu_from_ns) / 1e9;
}

/* Gives up what is still in flight. */
static void cut_connections(load_worker *self) {
    for (uint64_t i = 0; i < self->count; i++) {
        load_connection_cut(&self->connections[i]);
    }
    check_ended(self);
}

static int drained_enough(tram_loop *loop, void *arg) {
    (void)loop;
    cut_connections(arg);
    return 0;
}

void load_worker_end(load_worker *self, uint64_t until_ns) {
    load_shard *shard = &self->shard;
    if (shard->phase == LOAD_ENDING) {
        return;
    }
    bool ran = shard->phase == LOAD_RUNNING;
    stop_measuring(self, until_ns);
    shard->phase = LOAD_ENDING;
    if (!ran || tram_loop_call_later(shard->loop, LOAD_DRAIN_NS, drained_enough, self, NULL, NULL) < 0) {
        cut_connections(self);
        return;
    }
    for (uint64_t i = 0; i < self->count; i++) {
        load_connection_finish(&self->connections[i]);
    }
    check_ended(self);
}

/* ---- Making ---- */

static bool is_numeric(const char *host) {
    struct in6_addr address;
    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static bool allocate(load_worker *self, const load_worker_options *options) {
    self->connections = calloc(options->count, sizeof(*self->connections));
    self->rings = calloc(options->count * options->plan->pipeline, sizeof(*self->rings));
    self->dealt = calloc(options->count, sizeof(*self->dealt));
    self->shard.interval = options->live != NULL ? calloc(1, sizeof(histogram)) : NULL;
    return self->connections != NULL && self->rings != NULL && self->dealt != NULL &&
           (self->shard.interval != NULL || options->live == NULL);
}

load_worker *load_worker_new(const load_worker_options *options) {
    load_worker *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        return NULL;
    }
    if (!allocate(self, options)) {
        load_worker_free(self);
        return NULL;
    }
    self->owner = options->owner;
    self->events = options->events;
    self->live = options->live;
    self->count = options->count;
    self->opening_limit = options->opening_limit;
    self->shard.plan = options->plan;
    self->shard.pattern = options->pattern;
    self->shard.host = options->plan->host;
    self->shard.resolved = is_numeric(options->plan->host);
    self->shard.changed = connection_changed;
    snprintf(self->shard.port, sizeof(self->shard.port), "%" PRIu64, options->plan->port);
    for (uint64_t i = 0; i < self->count; i++) {
        load_connection *connection = &self->connections[i];
        connection->shard = &self->shard;
        connection->number = options->first_number + i;
        connection->sent_ns = self->rings + i * options->plan->pipeline;
    }
    return self;
}

void load_worker_free(load_worker *self) {
    if (self == NULL) {
        return;
    }
    free(self->connections);
    free(self->rings);
    free(self->dealt);
    free(self->shard.interval);
    tram_buffer_release(self->shard.session);
    free(self);
}
