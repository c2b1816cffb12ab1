#include "load/connection.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* ---- Errors ---- */

/* Counts the end of a connection once, for the first reason that is known. */
static void fail(load_connection *self, load_error_kind kind, const char *text) {
    load_tally *tally = &self->shard->tally;
    if (self->failed || self->closing) {
        return;
    }
    self->failed = true;
    if (self->proving || !self->shard->plan->churn) {
        self->usable = false;
    }
    tally->errors[kind]++;
    if (tally->first_error[0] == '\0') {
        snprintf(tally->first_error, sizeof(tally->first_error), "%s: %s", load_error_kind_name(kind), text);
    }
}

/* Requests that were sent and will have no answer. */
static void count_unanswered(load_connection *self) {
    load_tally *tally = &self->shard->tally;
    tally->errors[LOAD_UNANSWERED] += self->in_flight;
    if (self->in_flight > 0 && tally->first_error[0] == '\0') {
        snprintf(tally->first_error, sizeof(tally->first_error),
                 "unanswered: connection %" PRIu64 " waited for %" PRIu32 " answers at the end", self->number,
                 self->in_flight);
    }
}

static void fail_by_code(load_connection *self, load_error_kind kind, int code, const tram_error *error) {
    if (error != NULL && error->detail != NULL) {
        fail(self, kind, error->detail); /* which names address and reason */
    } else {
        fail(self, kind, code == 0 ? "the peer closed" : tram_error_text(code));
    }
}

static void fail_wrong_data(load_connection *self, const unsigned char *data, size_t size, size_t right) {
    load_tally *tally = &self->shard->tally;
    char text[LOAD_TEXT_SIZE];
    if (right == self->outstanding) {
        snprintf(text, sizeof(text), "connection %" PRIu64 ": %zu bytes came back that were not sent", self->number,
                 size - right);
    } else {
        uint32_t place = pattern_advance(self->receive_place, right);
        snprintf(text, sizeof(text), "connection %" PRIu64 ", byte %" PRIu64 ": 0x%02x instead of 0x%02x", self->number,
                 self->received + right, data[right], self->shard->pattern->bytes[place]);
    }
    if (tally->first_wrong[0] == '\0') {
        snprintf(tally->first_wrong, sizeof(tally->first_wrong), "%s", text);
    }
    fail(self, LOAD_WRONG_DATA, text);
    tram_transport_abort(self->protocol.transport);
}

static int answer_overdue(tram_loop *loop, void *arg) {
    (void)loop;
    load_connection *self = arg;
    char text[LOAD_TEXT_SIZE];
    snprintf(text, sizeof(text), "connected, but no answer within %" PRIu64 " ms", self->shard->plan->timeout_ms);
    fail(self, LOAD_UNANSWERED, text);
    return tram_transport_abort(self->protocol.transport);
}

/* ---- Requests ---- */

/* Hands to the transport what it wants, in one write if it is not much. Where there is none yet it is sent later. */
static void send_requests(load_connection *self) {
    while (self->unsent > 0 && !self->paused && self->protocol.transport != NULL) {
        size_t size = self->unsent < PATTERN_SPAN ? (size_t)self->unsent : PATTERN_SPAN;
        const unsigned char *data = self->shard->pattern->bytes + self->send_place;
        self->unsent -= size;
        self->outstanding += size;
        self->send_place = pattern_advance(self->send_place, size);
        if (tram_transport_write(self->protocol.transport, data, size) < 0) {
            return; /* connection_lost tells */
        }
    }
}

static void begin_requests(load_connection *self, uint32_t count, uint64_t now_ns) {
    uint32_t length = (uint32_t)self->shard->plan->pipeline;
    uint32_t next = self->oldest + self->in_flight;
    next = next < length ? next : next - length;
    for (uint32_t i = 0; i < count; i++) {
        self->sent_ns[next] = now_ns;
        next = next + 1 < length ? next + 1 : 0;
    }
    self->in_flight += count;
    self->shard->in_flight += count;
    self->unsent += count * self->shard->plan->size;
}

/* When the oldest request in flight should have been sent. */
static uint64_t intended_time(const load_connection *self) {
    const load_shard *shard = self->shard;
    if (!load_plan_is_open(shard->plan)) {
        return self->sent_ns[self->oldest];
    }
    uint64_t number = (self->issued - self->in_flight) * shard->turns + self->turn;
    return schedule_time(&shard->schedule, number);
}

/* The oldest request in flight is done. */
static void end_request(load_connection *self, uint64_t now_ns) {
    load_shard *shard = self->shard;
    load_tally *tally = &shard->tally;
    uint64_t sent_ns = self->sent_ns[self->oldest];
    uint64_t intended_ns = self->proving ? 0 : intended_time(self);
    self->oldest = self->oldest + 1 < shard->plan->pipeline ? self->oldest + 1 : 0;
    self->in_flight--;
    shard->in_flight--;
    if (self->proving || intended_ns < shard->measure_from_ns) {
        tally->unmeasured++;
        return;
    }
    tally->requests++;
    tally->in_time += now_ns <= shard->measure_until_ns;
    histogram_record(&tally->latency, now_ns - intended_ns);
    if (load_plan_is_open(shard->plan)) {
        histogram_record(&tally->service, now_ns - sent_ns);
    }
    if (shard->interval != NULL) {
        histogram_record(shard->interval, now_ns - intended_ns);
    }
}

void load_connection_advance(load_connection *self, uint64_t now_ns) {
    const load_shard *shard = self->shard;
    const load_plan *plan = shard->plan;
    if (shard->phase != LOAD_RUNNING || !self->usable) {
        return;
    }
    uint64_t count = plan->pipeline - self->in_flight;
    if (plan->churn && !load_connection_is_idle(self)) {
        count = 0;
    }
    if (load_plan_is_open(plan)) {
        uint64_t waiting = schedule_share(shard->due, self->turn, shard->turns) - self->issued;
        count = waiting < count ? waiting : count;
    }
    if (count == 0) {
        return;
    }
    self->issued += count;
    if (plan->churn) {
        load_connection_open(self);
        return;
    }
    begin_requests(self, (uint32_t)count, now_ns);
    send_requests(self);
}

/* ---- The life of a connection ---- */

bool load_connection_is_idle(const load_connection *self) {
    return self->attempt == NULL && !self->held && !self->resting;
}

static void start_again(load_connection *self);

/*
 * Did the target end the connection in good order, without having begun an answer that is missing? A send behind its
 * end breaks the pipe; one before it gets a reset.
 */
static bool ended_well(const load_connection *self, int code) {
    const load_shard *shard = self->shard;
    bool wanted = shard->phase == LOAD_RUNNING || (shard->phase == LOAD_ENDING && self->in_flight > 0);
    return shard->plan->reconnect && wanted && !self->proving && !self->closing && !self->failed &&
           (code == 0 || code == -EPIPE) && self->answer_left == shard->plan->size;
}

/* Called whenever the library may have let go. */
static void settle(load_connection *self) {
    load_shard *shard = self->shard;
    if (!load_connection_is_idle(self)) {
        return;
    }
    if (self->ended && !self->closing) {
        start_again(self);
        return;
    }
    if (!self->closing && !self->proving && !shard->plan->churn) {
        count_unanswered(self);
    }
    shard->in_flight -= self->in_flight;
    self->in_flight = 0;
    shard->busy--;
    shard->changed(self);
}

static int settle_later(tram_loop *loop, void *arg) {
    (void)loop;
    settle(arg);
    return 0;
}

/* A first connection shows which address the name stands for: the others need no resolver. */
static void learn_address(load_shard *shard, tram_transport *transport) {
    const tram_socket_address *peer = tram_transport_get_extra_info(transport, "peername", NULL);
    if (peer != NULL && getnameinfo((const struct sockaddr *)&peer->address, peer->size, shard->address,
                                    sizeof(shard->address), NULL, 0, NI_NUMERICHOST) == 0) {
        shard->host = shard->address;
        shard->resolved = true;
    }
}

static int load_connection_made(tram_protocol *protocol, tram_transport *transport) {
    load_connection *self = (load_connection *)protocol;
    load_shard *shard = self->shard;
    shard->tally.connected++;
    if (!shard->resolved) {
        learn_address(shard, transport);
    }
    if (self->closing) {
        return tram_transport_abort(transport);
    }
    if (self->ended) {
        self->ended = false;
        send_requests(self);
        if (shard->phase == LOAD_ENDING) {
            load_connection_finish(self);
        }
        return 0;
    }
    int code = tram_loop_call_later(shard->loop, shard->plan->timeout_ms * 1000000, answer_overdue, self, NULL,
                                    &self->deadline);
    send_requests(self);
    return code;
}

/* With TLS 1.3 it came before the first answer. */
static void keep_session(load_shard *shard, tram_transport *transport) {
    tram_buffer *session = tls_session_of(transport);
    if (session != NULL) {
        tram_buffer_release(shard->session);
        shard->session = session;
    }
}

/* The first answer is whole. */
static void first_answer(load_connection *self, uint64_t now_ns) {
    load_shard *shard = self->shard;
    tram_handle_cancel(shard->loop, self->deadline);
    if (shard->plan->resume) {
        keep_session(shard, self->protocol.transport);
    }
    if (shard->plan->churn) {
        /* The request ends with the connection. */
        self->answered = true;
        self->closing = true;
        tram_transport_close(self->protocol.transport);
        return;
    }
    end_request(self, now_ns);
    self->proving = false;
    self->usable = true;
    shard->tally.connections++;
    shard->changed(self);
}

static void take_answers(load_connection *self, uint64_t size, uint64_t now_ns) {
    while (size >= self->answer_left && self->in_flight > 0) {
        size -= self->answer_left;
        self->answer_left = self->shard->plan->size;
        if (self->proving || self->shard->plan->churn) {
            first_answer(self, now_ns);
            return; /* there was one request, so nothing is left over */
        }
        end_request(self, now_ns);
    }
    self->answer_left -= size;
}

static int load_data_received(tram_protocol *protocol, const void *data, size_t size) {
    load_connection *self = (load_connection *)protocol;
    load_shard *shard = self->shard;
    size_t expected = size < self->outstanding ? size : (size_t)self->outstanding;
    size_t right = pattern_match(shard->pattern, self->receive_place, data, expected);
    if (right < size) {
        fail_wrong_data(self, data, size, right);
        return 0;
    }
    self->received += size;
    self->outstanding -= size;
    self->receive_place = pattern_advance(self->receive_place, size);
    uint64_t now_ns = tram_loop_time(shard->loop);
    take_answers(self, size, now_ns);
    if (shard->phase == LOAD_ENDING) {
        load_connection_finish(self);
    } else {
        load_connection_advance(self, now_ns);
    }
    return 0;
}

static int load_pause_writing(tram_protocol *protocol) {
    ((load_connection *)protocol)->paused = true;
    return 0;
}

static int load_resume_writing(tram_protocol *protocol) {
    load_connection *self = (load_connection *)protocol;
    self->paused = false;
    send_requests(self);
    return 0;
}

static int load_connection_lost(tram_protocol *protocol, const tram_error *error) {
    load_connection *self = (load_connection *)protocol;
    load_shard *shard = self->shard;
    tram_handle_cancel(shard->loop, self->deadline);
    if (self->answered) {
        end_request(self, tram_loop_time(shard->loop));
        shard->tally.connections++;
        self->usable = true;
        return 0;
    }
    int code = error != NULL ? error->code : 0;
    if (ended_well(self, code)) {
        self->ended = true; /* the rest when the library has let go */
        return 0;
    }
    fail_by_code(self, load_error_kind_of_loss(code), code, error);
    return 0;
}

static void load_released(tram_protocol *protocol) {
    load_connection *self = (load_connection *)protocol;
    self->held = false;
    settle(self);
}

static const tram_protocol_ops load_ops = {
    .connection_made = load_connection_made,
    .data_received = load_data_received,
    .connection_lost = load_connection_lost,
    .pause_writing = load_pause_writing,
    .resume_writing = load_resume_writing,
    .released = load_released,
};

/* ---- Making a connection ---- */

static int load_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    load_connection *self = arg;
    self->protocol = (tram_protocol){.ops = &load_ops};
    self->held = true;
    *ret_protocol = &self->protocol;
    return 0;
}

static int connect_to_target(load_connection *self);

static int connect_again(tram_loop *loop, void *arg) {
    load_connection *self = arg;
    (void)loop;
    self->resting = false;
    int code = connect_to_target(self);
    if (code < 0) {
        fail_by_code(self, load_error_kind_of_connect(code), code, NULL);
        self->ended = false;
        settle(self);
    }
    return 0;
}

/* What is in flight is sent anew, and counts from when it was sent first. */
static void start_again(load_connection *self) {
    load_shard *shard = self->shard;
    uint64_t size = shard->plan->size;
    shard->tally.reconnects++;
    shard->tally.repeated += (self->outstanding + size - 1) / size;
    self->paused = false;
    self->outstanding = self->received = 0;
    self->unsent = self->in_flight * size;
    self->send_place = self->receive_place = pattern_start(self->number);
    self->ended_ns = tram_loop_time(shard->loop);
    connect_again(shard->loop, self);
}

/* The target may be about to listen again. */
static bool rests(load_connection *self) {
    load_shard *shard = self->shard;
    uint64_t waited_ns = tram_loop_time(shard->loop) - self->ended_ns;
    self->resting = self->ended && !self->closing && waited_ns < shard->plan->timeout_ms * 1000000 &&
                    tram_loop_call_later(shard->loop, LOAD_RETRY_NS, connect_again, self, NULL, &self->retry) == 0;
    return self->resting;
}

static int attempt_done(tram_future *future, void *arg) {
    load_connection *self = arg;
    int code = tram_future_result(future, NULL);
    if (code < 0 && rests(self)) {
        self->attempt = NULL;
        tram_future_release(future);
        return 0;
    }
    if (code < 0) {
        self->ended = false;
        fail_by_code(self, load_error_kind_of_connect(code), code, tram_future_error(future));
    }
    self->attempt = NULL;
    tram_future_release(future);
    settle(self);
    return 0;
}

static int connect_to_target(load_connection *self) {
    load_shard *shard = self->shard;
    const load_plan *plan = shard->plan;
    tram_connection_options options = {.timeout_ns = plan->timeout_ms * 1000000};
    if (plan->tls_config != NULL) {
        options.tls = plan->tls_config;
        options.server_hostname = plan->tls_setup.insecure ? "" : plan->host; /* not the address that it stood for */
        options.tls_handshake_timeout_ns = options.timeout_ns;
        options.tls_session = shard->session;
    }
    int code = tram_loop_create_connection(shard->loop, load_factory, self, shard->host, shard->port, &options,
                                           &self->attempt);
    if (code < 0) {
        self->attempt = NULL;
        return code;
    }
    code = tram_future_add_done_callback(self->attempt, attempt_done, self);
    if (code < 0) {
        /* Nobody would tell how it went, so let it not happen. */
        tram_future_cancel(self->attempt);
        tram_future_release(self->attempt);
        self->attempt = NULL;
    }
    return code;
}

void load_connection_open(load_connection *self) {
    load_shard *shard = self->shard;
    self->proving = shard->phase == LOAD_OPENING;
    self->answered = self->closing = self->failed = self->paused = self->ended = false;
    self->unsent = self->outstanding = self->received = 0;
    self->answer_left = shard->plan->size;
    self->oldest = 0;
    self->send_place = self->receive_place = pattern_start(self->number);
    if (shard->plan->churn) {
        self->number += shard->plan->connections; /* the next one in this place has a noise of its own */
    }
    shard->busy++;
    begin_requests(self, 1, tram_loop_time(shard->loop));
    int code = connect_to_target(self);
    if (code < 0) {
        fail_by_code(self, load_error_kind_of_connect(code), code, NULL);
        /* Not from here: the caller may be about to open the next one. */
        if (tram_loop_call_soon(shard->loop, settle_later, self, NULL, NULL) < 0) {
            settle(self);
        }
    }
}

void load_connection_finish(load_connection *self) {
    if (self->in_flight > 0) {
        return;
    }
    if (self->protocol.transport != NULL) {
        self->closing = true;
        tram_transport_close(self->protocol.transport);
    } else if (self->ended) {
        load_connection_cut(self);
    }
}

void load_connection_cut(load_connection *self) {
    if (load_connection_is_idle(self)) {
        return;
    }
    if (!self->closing && !self->failed && !self->proving) {
        count_unanswered(self);
    }
    self->closing = true;
    if (self->attempt != NULL) {
        tram_future_cancel(self->attempt);
    }
    if (self->protocol.transport != NULL) {
        tram_transport_abort(self->protocol.transport);
    }
    if (self->resting) {
        self->resting = false;
        tram_handle_cancel(self->shard->loop, self->retry);
        settle(self);
    }
}
