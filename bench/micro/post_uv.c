/* post.h over libuv, by the usual idiom: a list under a mutex, and one uv_async_t that says it is not empty. */
#include "post.h"

#include <uv.h>

#include "micro.h"

const bool party_can_spin = false;

struct item {
    struct item *next;
    post_function function;
    void *arg;
};

struct party {
    uv_loop_t loop;
    uv_async_t async;
    uv_idle_t idle;
    post_function soon;
    void *soon_arg;
    uv_mutex_t lock;
    struct item *first, **last;
};

static void arrived(uv_async_t *async) {
    struct party *party = async->data;
    uv_mutex_lock(&party->lock);
    struct item *item = party->first;
    party->first = NULL;
    party->last = &party->first;
    uv_mutex_unlock(&party->lock);
    while (item) {
        struct item *next = item->next;
        item->function(NULL, item->arg);
        free(item);
        item = next;
    }
}

static void idle(uv_idle_t *handle) {
    struct party *party = handle->data;
    uv_idle_stop(handle);
    party->soon(NULL, party->soon_arg);
}

struct party *party_new(uint64_t spin_ns) {
    (void)spin_ns;
    struct party *party = calloc(1, sizeof *party);
    party->last = &party->first;
    MICRO_CHECK(uv_loop_init(&party->loop) == 0);
    MICRO_CHECK(uv_mutex_init(&party->lock) == 0);
    MICRO_CHECK(uv_async_init(&party->loop, &party->async, arrived) == 0);
    MICRO_CHECK(uv_idle_init(&party->loop, &party->idle) == 0);
    party->async.data = party->idle.data = party;
    return party;
}

void party_free(struct party *party) {
    uv_close((uv_handle_t *)&party->async, NULL);
    uv_close((uv_handle_t *)&party->idle, NULL);
    uv_run(&party->loop, UV_RUN_DEFAULT);
    uv_loop_close(&party->loop);
    uv_mutex_destroy(&party->lock);
    free(party);
}

void party_run(struct party *party) {
    uv_run(&party->loop, UV_RUN_DEFAULT);
}

void party_stop(struct party *party) {
    uv_stop(&party->loop);
}

void party_post(struct party *party, post_function function, void *arg) {
    struct item *item = malloc(sizeof *item);
    MICRO_CHECK(item);
    *item = (struct item){NULL, function, arg};
    uv_mutex_lock(&party->lock);
    *party->last = item;
    party->last = &item->next;
    uv_mutex_unlock(&party->lock);
    uv_async_send(&party->async);
}

void party_soon(struct party *party, post_function function, void *arg) {
    party->soon = function;
    party->soon_arg = arg;
    uv_idle_start(&party->idle, idle);
}
