#include "transports/server/ops.h"

#include <string.h>

/* ---- Its life ---- */

static const struct life_state states[] = {
    [SERVER_MAKING] = {"making",
                       {[SERVER_BIND] = SERVER_BOUND, [SERVER_CLOSE] = SERVER_CLOSING, [SERVER_DROP] = SERVER_CLOSED}},
    [SERVER_BOUND] =
        {"bound", {[SERVER_SERVE] = SERVER_SERVING, [SERVER_CLOSE] = SERVER_CLOSING, [SERVER_DROP] = SERVER_CLOSED}},
    [SERVER_SERVING] = {"serving", {[SERVER_CLOSE] = SERVER_CLOSING}},
    [SERVER_CLOSING] = {"closing", {[SERVER_END] = SERVER_CLOSED}},
    [SERVER_CLOSED] = {.name = "closed"},
};

static void validate(const void *object) {
    const tram_server *server = object;
    bool has_sockets = server->life == SERVER_BOUND || server->life == SERVER_SERVING;
    TRAM_ASSERT(!server->listeners == !has_sockets);
}

static const struct life_table life = {.name = "server", .states = states, .validate = validate};

void tram__server_move(tram_server *server, enum server_move move) {
    tram__life_move(&life, &server->life, move, server);
}

/* ---- Memory ---- */

void tram__server_free_if_over(tram_server *server) {
    if (server->holds || server->life != SERVER_CLOSED || server->connections)
        return;
    list_remove(&server->hook.link);
    tram__expiries_fini(&server->expiries);
    if (!server->load)
        tram__limits_free(server->limits);
    tram__tls_use_close(&server->tls);
    tram_allocator allocator = server->allocator;
    tram_discard discard = server->discard;
    void *arg = server->arg;
    memory_put(&allocator, server, sizeof *server);
    if (discard)
        discard(arg);
}

void tram__server_put(tram_server *server) {
    server->holds--;
    tram__server_free_if_over(server);
}

/* ---- Operations ---- */

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
    deadline_cancel(op->future.loop, &op->deadline);
    op->server = NULL;
    if (server->forever == op)
        server->forever = NULL;
    tram__future_drop(&op->future);
    tram__server_put(server);
}

void tram__server_op_cancel(tram_future *future) {
    tram__future_finish_cancelled(future);
    tram__server_op_end((struct server_op *)future);
}

static struct server_op *first_of(struct list *list) {
    return container_of(list->next, struct server_op, link);
}

void tram__server_wake(tram_server *server) {
    if (server->life != SERVER_CLOSED || server->connections)
        return;
    if (server->load)
        tram__balance_drained(server->load);
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
            tram__server_op_cancel(&first_of(lists[i])->future);
}
