/* The futures of a server: wait_closed, drain, start_serving, serve_forever. */
#include "transports/server/server.h"

/* ---- wait_closed ---- */

static const struct future_kind wait_kind = {.name = "wait_closed", .cancel = tram__server_op_cancel};

int tram_server_wait_closed(tram_server *server, tram_future **ret_future) {
    int status = server->loop ? loop_enter_open(server->loop, __func__) : TRAM_ESTATE;
    if (status)
        return status;
    struct server_op *op;
    status = tram__server_op_new(server, &wait_kind, sizeof *op, &op, ret_future);
    if (status)
        return status;
    list_append(&server->waiting, &op->link);
    tram__server_wake(server);
    return 0;
}

/* ---- drain (G-1) ---- */

/* Turns between closing the server and asking its connections: one for connection_made, one for what is there. */
#define DRAIN_TICKS 2

static void cut_client(tram_transport *transport, void *arg) {
    (void)arg;
    tram__transport_expire(transport);
}

static void drain_expired(tram_loop *loop, struct deadline *deadline) {
    struct server_op *op = container_of(deadline, struct server_op, deadline);
    tram_server *server = op->server;
    tram_future *future = tram_future_hold(&op->future); /* what is called here may cancel it */
    char who[512];
    server->holds++;
    uint64_t before = loop->cut;
    tram__server_describe(server, who, sizeof who);
    tram__transport_each(loop, &server->owner, cut_client, NULL);
    uint64_t cut = loop->cut - before;
    if (server->load)
        balance_cut(server->load, cut);
    if (cut)
        tram__log(loop, TRAM_LOG_WARNING, "the time of a drain is over, %llu connections are aborted: %s",
                  (unsigned long long)cut, who);
    if (op->server) {
        tram__future_finish(future, (void *)(uintptr_t)cut);
        tram__server_op_end(op);
    }
    tram_future_release(future);
    tram__server_put(server);
}

static void ask_client(tram_transport *transport, void *arg) {
    (void)arg;
    tram__transport_ask_end(transport);
}

/* What clients had sent by the end of accepting is delivered before they are asked to end. */
static void drain_run(tram_loop *loop, struct ready *ready) {
    struct server_op *op = container_of(ready, struct server_op, ready);
    tram_server *server = op->server;
    server->holds++; /* who is asked may cancel this */
    if (server->load && tram__balance_has_inbound(server->load))
        op->turns = DRAIN_TICKS;
    if (op->turns-- > 0)
        loop_ready(loop, ready);
    else
        tram__transport_each(loop, &server->owner, ask_client, NULL);
    tram__server_wake(server); /* there may be nobody to wait for */
    tram__server_put(server);
}

static const struct future_kind drain_kind = {
    .name = "drain", .value = FUTURE_VALUE_COUNT, .cancel = tram__server_op_cancel};

int tram_server_drain(tram_server *server, uint64_t timeout_ns, tram_future **ret_future) {
    int status = server->loop ? loop_enter_open(server->loop, __func__) : TRAM_ESTATE;
    if (status)
        return status;
    struct server_op *op;
    status = tram__server_op_new(server, &drain_kind, sizeof *op, &op, ret_future);
    if (status)
        return status;
    uint64_t end_ns = time_after(tram__clock(server->loop), timeout_ns);
    op->deadline.expire = drain_expired;
    status = tram__deadline_start(server->loop, &op->deadline, end_ns);
    if (status) {
        tram__future_fail_code(&op->future, status, "drain");
        tram__server_op_end(op);
        return 0;
    }
    if (!server->owner.end_ns || end_ns < server->owner.end_ns)
        server->owner.end_ns = end_ns;
    op->turns = DRAIN_TICKS;
    op->ready.run = drain_run;
    loop_ready(server->loop, &op->ready);
    bool closed = server->life >= SERVER_CLOSING;
    tram_future *future = tram_future_hold(&op->future); /* whoever is called within may cancel it */
    tram__server_shut(server, true);
    if (op->server)
        list_append(&server->waiting, &op->link);
    tram_future_release(future);
    if (closed)
        tram__server_wake(server);
    return 0;
}

/* ---- start_serving: done one tick after it began (V-8) ---- */

static const struct future_kind start_kind = {.name = "start_serving", .cancel = tram__server_op_cancel};

static void started(tram_loop *loop, struct ready *ready) {
    (void)loop;
    struct server_op *op = container_of(ready, struct server_op, ready);
    tram__future_finish(&op->future, NULL);
    tram__server_op_end(op);
}

/* On a closed server, or one that is still being made. */
static int begin_serving(tram_server *server, const char *function) {
    int status = server->loop ? loop_enter_open(server->loop, function) : TRAM_ESTATE;
    if (status)
        return status;
    if (!server->listeners)
        return TRAM_ESTATE;
    struct kept_error error;
    return tram__server_serve(server, &error);
}

int tram_server_start_serving(tram_server *server, tram_future **ret_future) {
    int status = begin_serving(server, __func__);
    if (status || !ret_future)
        return status;
    struct server_op *op;
    status = tram__server_op_new(server, &start_kind, sizeof *op, &op, ret_future);
    if (status)
        return status;
    op->ready.run = started;
    loop_ready(server->loop, &op->ready);
    list_append(&server->starting, &op->link);
    return 0;
}

/* ---- serve_forever ---- */

/* The first cancel closes the server and waits for its connections; the next interrupts that wait (V-20). */
static void forever_cancel(tram_future *future) {
    struct server_op *op = (struct server_op *)future;
    if (op->server->life >= SERVER_CLOSING) {
        tram__server_op_cancel(future);
        return;
    }
    future->cancelling = false;
    tram__server_shut(op->server, true);
}

static const struct future_kind forever_kind = {.name = "serve_forever", .cancel = forever_cancel};

int tram_server_serve_forever(tram_server *server, tram_future **ret_future) {
    int status = server->forever ? TRAM_ESTATE : begin_serving(server, __func__);
    if (status)
        return status;
    return tram__server_op_new(server, &forever_kind, sizeof *server->forever, &server->forever, ret_future);
}
