/*
 * Rule W-30: who ends a connection with bytes that were accepted and not sent, and what peer and protocol see of it.
 *
 * tram-test: with TLS, where there is one
 */
#include "support/faults.h"
#include "support/layers.h"
#include "support/stream.h"
#include "support/support.h"
#ifdef TRAM_TEST_TLS
#include "support/tls/overlay.h"
#endif
#include "transports/base/transport.h"

#include <sys/socket.h>
#include <unistd.h>

enum seen { SEEN_RESET, SEEN_EOF, SEEN_NOTHING };

struct cut {
    const char *name;
    void (*end)(struct world *world, struct wire *wire);
    enum seen peer;
    int code; /* connection_lost's */
};

static void by_hard_limit(struct world *world, struct wire *wire) {
    (void)world;
    tram_transport_set_write_hard_limit(wire->transport, 1);
}

static int fails(struct recorder *recorder, const char *event) {
    (void)recorder;
    return strcmp(event, "data") == 0 ? TRAM_EUSER : 0;
}

static void by_failing_protocol(struct world *world, struct wire *wire) {
    wire->recorder->on = fails;
    send_exactly(world, wire->peer, "x", 1);
}

static void by_want_of_memory(struct world *world, struct wire *wire) {
    static const char bytes[100000];
    world->fail_after = 0;
    assert_int_equal(tram_transport_write(wire->transport, bytes, sizeof bytes), -ENOMEM);
    world->fail_after = SIZE_MAX;
}

static void by_stop(struct world *world, struct wire *wire) {
    (void)world;
    tram__transport_ending(wire->transport, IO_SHUTDOWN_ABORT);
}

static void by_close_and_stop(struct world *world, struct wire *wire) {
    tram_transport_close(wire->transport);
    by_stop(world, wire);
}

static void by_loop_close(struct world *world, struct wire *wire) {
    (void)wire;
    world_reopen(world);
}

static void by_abort(struct world *world, struct wire *wire) {
    (void)world;
    tram_transport_abort(wire->transport);
}

static void by_reset(struct world *world, struct wire *wire) {
    (void)world;
    tram_transport_reset(wire->transport);
}

/* What the peer sees behind the bytes that got through. */
static enum seen seen_by(int peer) {
    char bytes[65536];
    ssize_t got;
    set_blocking(peer, true);
    while ((got = read(peer, bytes, sizeof bytes)) > 0)
        ;
    if (got < 0)
        assert_int_equal(errno, ECONNRESET);
    return got < 0 ? SEEN_RESET : SEEN_EOF;
}

static void test_W_30_whoever_cuts_the_peer_is_not_told_an_orderly_end(void **state) {
    static const struct cut cuts[] = {
        {"hard limit", by_hard_limit, SEEN_RESET, TRAM_ELIMIT},
        {"failing protocol", by_failing_protocol, SEEN_RESET, TRAM_EUSER},
        {"no memory", by_want_of_memory, SEEN_RESET, -ENOMEM},
        {"stop", by_stop, SEEN_RESET, TRAM_ETIMEOUT},
        {"stop of one that closes", by_close_and_stop, SEEN_RESET, TRAM_ETIMEOUT},
        {"loop close", by_loop_close, SEEN_RESET, TRAM_ECANCELLED},
        {"abort", by_abort, SEEN_EOF, 0},
        {"reset", by_reset, SEEN_RESET, 0},
    };
    struct world *world = *state;
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        struct wire wire = wire_new_made(world, recorder_new(world, "a"));
        fill(wire.transport, 100000);
        cuts[i].end(world, &wire);
        run_until(world, &wire.recorder->lost);
        run_to_rest(world);
        if (wire.recorder->lost_code != cuts[i].code)
            fail_msg("%s: lost with %d", cuts[i].name, wire.recorder->lost_code);
        if (seen_by(wire.peer) != cuts[i].peer)
            fail_msg("%s: the peer saw something else", cuts[i].name);
        close(wire.peer);
        world->trace[0] = '\0';
    }
}

/* Nothing is queued: the kernel took what it could, and nobody can keep the rest. */
static void test_W_30_a_write_that_was_sent_in_part_is_cut(void **state) {
    static const char bytes[32 << 20];
    struct iovec pieces[] = {{(void *)(uintptr_t)bytes, sizeof bytes / 2},
                             {(void *)(uintptr_t)bytes, sizeof bytes / 2}};
    struct world *world = *state;
    for (int several = 0; several < 2; several++) {
        struct wire wire = wire_new_made(world, recorder_new(world, "a"));
        tram_stats before, now;
        tram_loop_stats(world->loop, &before);
        world->fail_after = 0;
        int status = several ? tram_transport_writelines(wire.transport, pieces, 2)
                             : tram_transport_write(wire.transport, bytes, sizeof bytes);
        world->fail_after = SIZE_MAX;
        assert_int_equal(status, -ENOMEM);
        tram_loop_stats(world->loop, &now);
        assert_true(now.bytes_sent > before.bytes_sent);
        run_until(world, &wire.recorder->lost);
        run_to_rest(world);
        assert_int_equal(wire.recorder->lost_code, -ENOMEM);
        assert_int_equal(seen_by(wire.peer), SEEN_RESET);
        close(wire.peer);
        world->trace[0] = '\0';
    }
}

/* Nothing was queued: nothing was cut. */
static void test_W_30_an_end_without_loss_is_orderly(void **state) {
    static void (*const ends[])(struct world *, struct wire *) = {by_failing_protocol, by_stop, by_loop_close};
    struct world *world = *state;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct wire wire = wire_new_made(world, recorder_new(world, "a"));
        ends[i](world, &wire);
        run_until(world, &wire.recorder->lost);
        run_to_rest(world);
        assert_int_equal(seen_by(wire.peer), SEEN_EOF);
        close(wire.peer);
        world->trace[0] = '\0';
    }
}

/* ---- Who cuts what, over which carrier, with and without bytes queued, with and without a layer ---- */

struct scene {
    struct channel channel; /* the first end is ours, the second the peer's */
    enum carrier carrier;
    bool queued;
    tram_future *bridged; /* a bridge has our end: it is the bridge that hears how it ends */
    bool peer_had_to_end; /* it is of the loop that closed */
    int copy;             /* of the peer's descriptor, where its loop closes; else -1 */
};

#define PEER_MADE 1 /* in place of a code: an error, which one is the kernel's affair */

struct outcome {
    int code; /* our protocol's connection_lost */
    enum seen seen;
};

struct actor {
    const char *name;
    void (*act)(struct scene *scene);
    struct outcome idle;   /* nothing is queued */
    struct outcome queued; /* over TCP; elsewhere the peer sees the end of the stream, and the code is the same */
    bool needs_queue;      /* it does nothing without */
    bool needs_socket;
    bool bare; /* the layer of the test has memory of its own */
};

static void user_closes(struct scene *scene) {
    tram_transport_close(scene->channel.first);
}

static void user_aborts(struct scene *scene) {
    tram_transport_abort(scene->channel.first);
}

static void user_resets(struct scene *scene) {
    tram_transport_reset(scene->channel.first);
}

static void abort_clients(struct scene *scene) { /* as server/calls.c does it */
    tram__transport_note_end(scene->channel.first, END_STOP);
    tram_transport_abort(scene->channel.first);
}

static void peer_closes(struct scene *scene) {
    tram_transport_close(scene->channel.second);
}

static void peer_resets(struct scene *scene) {
    tram_transport_reset(scene->channel.second);
}

static void peer_half_closes(struct scene *scene) {
    tram_transport_write_eof(scene->channel.second);
}

static void send_fails(struct scene *scene) {
    fail_next(&faults.send, ETIMEDOUT, 1);
    tram_transport_write(scene->channel.first, "x", 1);
    tram_transport_resume_reading(scene->channel.second);
}

static void over_hard_limit(struct scene *scene) {
    tram_transport_set_write_hard_limit(scene->channel.first, 1);
}

static void idle_deadline(struct scene *scene) { /* as limits/expiry.c does it */
    tram__transport_end_by(scene->channel.first, END_TIMEOUT, -ETIMEDOUT, "idle", NULL);
}

static void end_of_grace(struct scene *scene) {
    tram__transport_ending(scene->channel.first, IO_SHUTDOWN_ABORT);
}

static void protocol_fails(struct scene *scene) {
    scene->channel.a->on = fails;
    tram_transport_write(scene->channel.second, "x", 1);
}

static void out_of_memory(struct scene *scene) {
    struct world *world = scene->channel.world;
    static char bytes[100000];
    world->fail_after = 0;
    tram_transport_write(scene->channel.first, bytes, sizeof bytes);
    world->fail_after = SIZE_MAX;
}

static void bridge_idles(struct scene *scene) {
    struct world *world = scene->channel.world;
    struct channel other;
    tram_bridge_options options = {.idle_timeout_ns = 1000000};
    channel_open_bare(&other, world, CARRIER_PAIR, recorder_new(world, "c"), recorder_new(world, "d"));
    run_until(world, &other.a->made);
    assert_int_equal(tram_bridge(scene->channel.first, other.first, &options, &scene->bridged), 0);
}

static void loop_closes(struct scene *scene) {
    scene->peer_had_to_end = scene->carrier == CARRIER_PAIR;
    if (!scene->peer_had_to_end)
        scene->copy = dup(scene->channel.second->io.fd);
    world_reopen(scene->channel.world);
}

static const struct actor actors[] = {
    {.name = "close", .act = user_closes, .idle = {0, SEEN_EOF}, .queued = {0, SEEN_EOF}},
    {.name = "abort", .act = user_aborts, .idle = {0, SEEN_EOF}, .queued = {0, SEEN_EOF}},
    {.name = "reset", .act = user_resets, .idle = {0, SEEN_RESET}, .queued = {0, SEEN_RESET}},
    {.name = "abort_clients", .act = abort_clients, .idle = {0, SEEN_EOF}, .queued = {0, SEEN_RESET}},
    {.name = "peer closes", .act = peer_closes, .idle = {0, SEEN_NOTHING}, .queued = {PEER_MADE, SEEN_NOTHING}},
    {.name = "peer resets", .act = peer_resets, .idle = {PEER_MADE, SEEN_NOTHING}, .queued = {PEER_MADE, SEEN_NOTHING}},
    {.name = "peer half closes", .act = peer_half_closes, .idle = {0, SEEN_EOF}, .queued = {0, SEEN_EOF}},
    {.name = "send fails",
     .act = send_fails,
     .idle = {-ETIMEDOUT, SEEN_RESET},
     .queued = {-ETIMEDOUT, SEEN_RESET},
     .needs_socket = true},
    {.name = "hard limit", .act = over_hard_limit, .queued = {TRAM_ELIMIT, SEEN_RESET}, .needs_queue = true},
    {.name = "idle", .act = idle_deadline, .idle = {-ETIMEDOUT, SEEN_EOF}, .queued = {-ETIMEDOUT, SEEN_RESET}},
    {.name = "grace", .act = end_of_grace, .idle = {0, SEEN_EOF}, .queued = {TRAM_ETIMEOUT, SEEN_RESET}},
    {.name = "loop", .act = loop_closes, .idle = {0, SEEN_EOF}, .queued = {TRAM_ECANCELLED, SEEN_RESET}},
    {.name = "protocol", .act = protocol_fails, .idle = {TRAM_EUSER, SEEN_EOF}, .queued = {TRAM_EUSER, SEEN_RESET}},
    {.name = "memory", .act = out_of_memory, .queued = {-ENOMEM, SEEN_RESET}, .needs_queue = true, .bare = true},
    {.name = "bridge idles", .act = bridge_idles, .idle = {0, SEEN_EOF}, .queued = {0, SEEN_RESET}},
};

static void open_scene(struct scene *scene, struct world *world, enum carrier carrier, unsigned depth, bool queued) {
    *scene = (struct scene){.carrier = carrier, .queued = queued, .copy = -1};
    struct channel *channel = &scene->channel;
    channel_begin(channel, world, carrier, depth);
    int small = 1;
    if (carrier != CARRIER_PAIR)
        setsockopt(channel->first->io.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    run_until(world, &channel->a->made);
    run_until(world, &channel->b->made);
    run_to_rest(world);
    channel->a->quiet_data = channel->b->quiet_data = true;
    if (!queued)
        return;
    tram_transport_pause_reading(channel->second);
    /* More than kernels take meanwhile. */
    for (size_t size = 0; tram_transport_get_write_buffer_size(channel->first) < 400000; size += 10000)
        write_pattern(channel->first, 10000, size);
}

static bool our_end_is_over(void *arg) {
    const struct scene *scene = arg;
    return scene->bridged ? tram_future_done(scene->bridged) : scene->channel.a->was_released;
}

static enum seen seen_by_peer(struct scene *scene) {
    struct channel *channel = &scene->channel;
    if (scene->peer_had_to_end)
        return SEEN_EOF;
    if (scene->copy >= 0) {
        enum seen seen = seen_by(scene->copy);
        close(scene->copy);
        return seen;
    }
    if (!channel->b->lost)
        tram_transport_resume_reading(channel->second);
    run_until(channel->world, &channel->b->was_released);
    return strstr(channel->world->trace, "b.eof") ? SEEN_EOF : SEEN_RESET;
}

static void check_cut(struct world *world, const struct actor *actor, enum carrier carrier, unsigned depth,
                      bool queued) {
    static const char *const names[] = {"TCP", "Unix", "pair"};
    struct scene scene;
    open_scene(&scene, world, carrier, depth, queued);
    struct channel *channel = &scene.channel;
    const struct outcome *expected = queued ? &actor->queued : &actor->idle;
    actor->act(&scene);
    if (!actor->needs_socket && expected->seen == SEEN_EOF && !channel->b->lost && scene.copy < 0 &&
        !tram_transport_is_closing(channel->second))
        tram_transport_resume_reading(channel->second); /* what is to be flushed needs a reader */
    run_until_true(world, our_end_is_over, &scene);
    enum seen wanted = expected->seen == SEEN_RESET && carrier != CARRIER_TCP ? SEEN_EOF : expected->seen,
              seen = seen_by_peer(&scene);
    int code = channel->a->lost_code;
    if (scene.bridged) {
        const tram_bridge_result *result;
        assert_int_equal(tram_future_result(scene.bridged, (void **)&result), 0);
        assert_int_equal(result->outcome, TRAM_BRIDGE_IDLE);
        tram_future_release(scene.bridged);
        code = 0;
    }
    bool made_by_peer = expected->code == PEER_MADE;
    if ((wanted != SEEN_NOTHING && seen != wanted) ||
        (made_by_peer ? carrier == CARRIER_TCP && !depth && code >= 0 : code != expected->code))
        fail_msg("%s, %s, %u layers, %s: lost with %d, the peer saw %s", actor->name, names[carrier], depth,
                 queued ? "queued" : "idle", code, seen == SEEN_RESET ? "a reset" : "the end");
    run_to_rest(world);
    assert_int_equal(channel->live, 0);
    world->trace[0] = '\0';
}

static void test_W_30_Y_1_who_cuts_what_and_what_both_ends_see(void **state) {
    struct world *world = *state;
    for (size_t i = 0; i < sizeof actors / sizeof actors[0]; i++)
        for (enum carrier carrier = 0; carrier <= CARRIER_PAIR; carrier++)
            for (unsigned depth = 0; depth <= (actors[i].bare ? 0 : 2); depth++)
                for (int queued = 0; queued < (depth < 2 ? 2 : 1); queued++)
                    if ((queued || !actors[i].needs_queue) && (carrier != CARRIER_PAIR || !actors[i].needs_socket))
                        check_cut(world, &actors[i], carrier, depth, queued);
}

static const struct CMUnitTest of_layers[] = {
    cmocka_unit_test_setup_teardown(test_W_30_Y_1_who_cuts_what_and_what_both_ends_see, world_setup_faults,
                                    world_teardown),
};

/* Again, over TLS. */
static int ask_tls(void) {
#ifdef TRAM_TEST_TLS
    return cmocka_run_group_tests_name("of TLS", of_layers, tls_overlay_setup, tls_overlay_teardown);
#else
    return 0;
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_W_30_whoever_cuts_the_peer_is_not_told_an_orderly_end, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_W_30_a_write_that_was_sent_in_part_is_cut, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(test_W_30_an_end_without_loss_is_orderly, world_setup, world_teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    failed += cmocka_run_group_tests_name("of layers", of_layers, NULL, NULL);
    return failed + ask_tls();
}
