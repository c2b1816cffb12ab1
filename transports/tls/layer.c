/*
 * How to read this file: the entries of the layer's table come in the order of a connection's life. Each asks the
 * engine, which reads and writes by read_below() and write_below(); a failure of the engine is the connection's.
 */
#include "transports/tls/layer.h"

#include <string.h>

#include "core/base/memory.h"
#include "core/base/probes.h"
#include "core/loop/stats.h"
#include "transports/base/types.h"

static struct tls_layer *tls_of(struct layer *layer) {
    return (struct tls_layer *)layer;
}

static ssize_t read_below(struct tls_engine *engine, void *memory, size_t size) {
    return tram__layer_read(&container_of(engine, struct tls_layer, engine)->layer, memory, size);
}

static bool may_read_below(const struct tls_engine *engine) {
    return tram__layer_may_read(&container_of(engine, const struct tls_layer, engine)->layer);
}

static void write_below(struct tls_engine *engine, const void *data, size_t size) {
    struct tls_layer *tls = container_of(engine, struct tls_layer, engine);
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    tram__layer_write(&tls->layer, &piece, 1, engine->more);
}

const struct tls_below tram__tls_layer_below = {.read = read_below, .may_read = may_read_below, .write = write_below};

static int fail(struct tls_layer *tls, const char *operation, const struct tls_failure *failure) {
    tram__layer_fail(&tls->layer, failure->code, operation, failure->text);
    return failure->code;
}

/* ---- Handshake ---- */

static const struct layer_kind half_closing_kind;

/*
 * A handshake costs hundreds of times what an echo does: those that begin at once wait for each other, so that they do
 * not keep established connections waiting.
 */
static bool over_budget(struct tls_loop *loop) {
    uint64_t tick = stats_read(&loop->loop->stats.ticks);
    if (loop->steps_tick != tick) {
        loop->steps_tick = tick;
        loop->steps = 0;
    }
    bool over = loop->steps >= TRAM_TLS_STEPS_PER_TICK;
    loop->steps += !over;
    stats_add(over ? &loop->loop->stats.tls_postponed : &loop->loop->stats.tls_steps, 1);
    return over;
}

static void established(struct tls_layer *tls) {
    tram_stats *stats = &tls->engine.loop->loop->stats;
    bool resumed = SSL_session_reused(tls->engine.ssl);
    stats_add(&stats->tls_handshakes, 1);
    if (resumed)
        stats_add(&stats->tls_resumed, 1);
    PROBE3(tls_handshake_end, tls->layer.transport, 0, resumed);
    /* TLS 1.2 has one close_notify for both directions. */
    if (tls->engine.context->description->half_close && SSL_version(tls->engine.ssl) >= TLS1_3_VERSION)
        tls->layer.kind = &half_closing_kind;
}

static int start(struct layer *layer) {
    struct tls_layer *tls = tls_of(layer);
    struct tls_failure failure;
    if (layer->state == LAYER_NEW)
        PROBE2(tls_handshake_begin, layer->transport, (bool)tls->engine.server);
    if (over_budget(tls->engine.loop)) {
        tram__layer_again(layer);
        return -EAGAIN;
    }
    int result = tram__tls_engine_handshake(&tls->engine, &failure);
    if (result == 0)
        return -EAGAIN;
    if (result < 0) {
        stats_add(&tls->engine.loop->loop->stats.tls_failed, 1);
        PROBE3(tls_handshake_end, layer->transport, failure.code, false);
        return fail(tls, "tls_handshake", &failure);
    }
    established(tls);
    return 0;
}

static void started(struct layer *layer, const tram_error *error) {
    struct tls_layer *tls = tls_of(layer);
    struct tls_watcher *watcher = tls->watcher;
    tls->info = NULL;
    if (error && layer->state == LAYER_STARTING && layer->transport->end.reason == END_TIMEOUT)
        stats_add(&tls->engine.loop->loop->stats.tls_expired, 1);
    if (watcher)
        watcher->started(watcher, layer->transport, error);
}

/* ---- Bytes ---- */

static bool may_read(const struct layer *layer) {
    return tram__tls_engine_may_read(&((const struct tls_layer *)layer)->engine);
}

static size_t pending(const struct layer *layer) {
    return tram__tls_engine_pending(&((const struct tls_layer *)layer)->engine);
}

static ssize_t read_layer(struct layer *layer, void *memory, size_t size) {
    struct tls_layer *tls = tls_of(layer);
    struct tls_failure failure;
    ssize_t got = tram__tls_engine_read(&tls->engine, memory, size, &failure);
    if (got > 0 || got == -EAGAIN)
        return got;
    if (got < 0)
        return fail(tls, "tls_read", &failure);
    tls->engine.unclean |= !tls->engine.close_received;
    return 0;
}

static bool send_record(struct tls_layer *tls, const void *data, size_t size, bool more) {
    struct tls_failure failure;
    tls->engine.more = more;
    int code = tram__tls_engine_write(&tls->engine, data, size, &failure);
    tls->engine.more = false;
    if (code != 0)
        fail(tls, "tls_write", &failure);
    return code == 0;
}

/* Where the next bytes are: as they are in one piece, or put together. Without memory records are smaller. */
static const void *next_record(struct tls_loop *loop, struct iovec *piece, const struct iovec **rest, size_t *size) {
    while (piece->iov_len == 0)
        *piece = *(*rest)++;
    const char *data = piece->iov_base;
    if (piece->iov_len < *size && !loop->record)
        loop->record = memory_get(&loop->loop->allocator, TLS_RECORD_SIZE);
    if (piece->iov_len >= *size || !loop->record) {
        *size = MIN(piece->iov_len, *size);
        piece->iov_base = (char *)piece->iov_base + *size;
        piece->iov_len -= *size;
        return data;
    }
    for (size_t have = 0; have < *size;) {
        while (piece->iov_len == 0)
            *piece = *(*rest)++;
        size_t part = MIN(piece->iov_len, *size - have);
        memcpy(loop->record + have, piece->iov_base, part);
        piece->iov_base = (char *)piece->iov_base + part;
        piece->iov_len -= part;
        have += part;
    }
    return loop->record;
}

static void write_layer(struct layer *layer, const struct iovec *pieces, size_t count) {
    struct tls_layer *tls = tls_of(layer);
    size_t left = 0;
    if (likely(count == 1 && pieces->iov_len <= TLS_RECORD_SIZE)) {
        (void)send_record(tls, pieces->iov_base, pieces->iov_len, false);
        return;
    }
    for (size_t i = 0; i < count; i++)
        left += pieces[i].iov_len;
    struct iovec piece = {0};
    while (left > 0) {
        size_t size = MIN(left, TLS_RECORD_SIZE);
        const void *data = next_record(tls->engine.loop, &piece, &pieces, &size);
        left -= size;
        if (!send_record(tls, data, size, left > 0))
            return;
    }
}

/* ---- Ends ---- */

static bool write_eof(struct layer *layer) {
    tram__tls_engine_close(&tls_of(layer)->engine);
    return false; /* an alert or the answer to a key update may have to follow */
}

static int shut_down(struct layer *layer) {
    struct tls_layer *tls = tls_of(layer);
    struct tls_failure failure;
    char dropped[4096];
    tram__tls_engine_close(&tls->engine);
    ssize_t got;
    do
        got = tram__tls_engine_read(&tls->engine, dropped, sizeof dropped, &failure);
    while (got > 0);
    return got == -EAGAIN ? -EAGAIN : 0;
}

static const void *extra_info(struct layer *layer, const char *name) {
    static const bool flags[] = {false, true};
    struct tls_layer *tls = tls_of(layer);
    if (strcmp(name, "tls_unclean") == 0)
        return &flags[tls->engine.unclean];
    return tram__tls_info_get(layer->told ? &tls->info : NULL, &tls->engine, name);
}

static int leave(struct layer *layer) {
    struct tls_layer *tls = tls_of(layer);
    if (!tls->engine.established)
        return -EAGAIN;
    tram__tls_engine_leave(&tls->engine);
    return 0;
}

static int arrive(struct layer *layer) {
    return tram__tls_engine_arrive(&tls_of(layer)->engine, tram_transport_get_loop(layer->transport));
}

static void free_layer(struct layer *layer) {
    struct tls_layer *tls = tls_of(layer);
    tram__tls_info_free(layer->told ? tls->info : NULL);
    tram__tls_engine_free(&tls->engine);
    memory_put(&tram__memory_default, tls, sizeof *tls);
}

const struct layer_kind tram__tls_layer_kind = {
    .name = "tls",
    .start = start,
    .started = started,
    .may_read = may_read,
    .pending = pending,
    .read = read_layer,
    .write = write_layer,
    .shutdown = shut_down,
    .extra_info = extra_info,
    .leave = leave,
    .arrive = arrive,
    .free = free_layer,
    .start_timeout_code = -ECONNABORTED,
};

/* Once the handshake is done, where the config wants it and the version has it. */
static const struct layer_kind half_closing_kind = {
    .name = "tls",
    .start = start,
    .started = started,
    .may_read = may_read,
    .pending = pending,
    .read = read_layer,
    .write = write_layer,
    .write_eof = write_eof,
    .shutdown = shut_down,
    .extra_info = extra_info,
    .leave = leave,
    .arrive = arrive,
    .free = free_layer,
    .start_timeout_code = -ECONNABORTED,
};

struct tls_layer *tram__tls_layer_of(const tram_transport *transport) {
    struct layer *layer = tram__transport_find_layer(transport, &tram__tls_layer_kind);
    struct layer *half_closing = tram__transport_find_layer(transport, &half_closing_kind);
    return tls_of(half_closing ? half_closing : layer);
}
