#include "transports/tls/idle.h"

bool tram__tls_idle_end_round(struct tls_loop *loop) {
    for (unsigned count = 0; !list_empty(&loop->resting); count++) {
        if (count == TRAM_TLS_TRIMS_PER_TICK)
            return true;
        struct tls_engine *engine = container_of(loop->resting.next, struct tls_engine, idle_link);
        tls_idle_forget(engine);
        engine->uses = 0;
        SSL_set_mode(engine->ssl, SSL_MODE_RELEASE_BUFFERS);
        if (!engine->failed)
            (void)SSL_free_buffers(engine->ssl); /* those with half a record keep it */
    }
    list_move_all(&loop->used, &loop->resting);
    if (++loop->idle_round == 0)
        loop->idle_round = 1; /* 0 stands for none */
    return false;
}

static void expired(tram_loop *loop, struct deadline *deadline);

static void start_timer(struct tls_loop *loop, uint64_t after_ns) {
    if (loop->idle_timer.timer.place != TIMER_IDLE)
        return;
    loop->idle_timer.expire = expired;
    (void)tram__deadline_start_after(loop->loop, &loop->idle_timer, after_ns); /* else the next use tries again */
}

static void expired(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    struct tls_loop *tls = container_of(deadline, struct tls_loop, idle_timer);
    if (tram__tls_idle_end_round(tls))
        start_timer(tls, 1);
    else if (!list_empty(&tls->resting))
        start_timer(tls, TRAM_TLS_IDLE_NS);
}

void tram__tls_idle_note(struct tls_engine *engine) {
    struct tls_loop *loop = engine->loop;
    if (engine->uses < TRAM_TLS_BUSY_USES && ++engine->uses < TRAM_TLS_BUSY_USES)
        return;
    if (engine->idle_round == 0)
        SSL_clear_mode(engine->ssl, SSL_MODE_RELEASE_BUFFERS);
    list_remove(&engine->idle_link);
    list_append(&loop->used, &engine->idle_link);
    engine->idle_round = loop->idle_round;
    start_timer(loop, TRAM_TLS_IDLE_NS);
}
