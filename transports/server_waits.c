/* The futures of a server: wait_closed, start_serving, serve_forever. */
#include "transports/server.h"

#include <string.h>

int tram__server_op_new(tram_server *server, const struct future_kind *kind, size_t size, void *ret_op,
                        tram_future **ret_future) {
    struct server_op *op;
    int status = tram__future_new(server->loop, kind, size, &op);
    if (status)
        return status;
    list_init(&op->link);
    list_init(&op->ready.link);
    op->server = server;
    server->holds++;
    if (ret_future)
        *ret_future = tram_future_hold(&op->future);
    memcpy(ret_op, &op, sizeof op); /* a pointer to whatever embeds it */
    return 0;
}

void tram__server_op_end(struct server_op *op) {
    tram_server *server = op->server;
    list_remove(&op->link);
    list_remove(&op->ready.link);
    op->server = NULL;
    if (server->forever == op)
        server->forever = NULL;
    tram__future_drop(&op->future);
    tram__server_put(server);
}

static void op_cancel(tram_future *future) {
    tram__future_finish_cancelled(future);
    tram__server_op_end((struct server_op *)future);
}

static struct server_op *first_of(struct list *list) {
    return container_of(list->next, struct server_op, link);
}

void tram__server_wake(tram_server *server) {
    if (!server->closed || server->connections)
        return;
    while (!list_empty(&server->waiting)) {
        struct server_op *op = first_of(&server->waiting);
        if (op == server->forever)
            tram__future_finish_cancelled(&op->future);
        else
            tram__future_finish(&op->future, NULL);
        tram__server_op_end(op);
    }
}

void tram__server_drop_ops(tram_server *server) {
    struct list *lists[] = {&server->starting, &server->waiting};
    for (size_t i = 0; i < 2; i++)
        while (!list_empty(lists[i]))
            op_cancel(&first_of(lists[i])->future);
}

/* ---- wait_closed ---- */

static const struct future_kind wait_kind = {.name = "wait_closed", .cancel = op_cancel};

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

/* ---- start_serving: done one tick after it began (V-8) ---- */

static const struct future_kind start_kind = {.name = "start_serving", .cancel = op_cancel};

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
    if (server->closed || !server->listeners)
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
    if (op->server->closed) {
        op_cancel(future);
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
