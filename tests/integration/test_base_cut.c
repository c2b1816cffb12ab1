/* Rule W-30: who ends a connection with bytes that were accepted and not sent, and what peer and protocol see of it. */
#include "support/stream.h"
#include "support/support.h"
#include "transports/base/transport.h"

#include <unistd.h>

enum seen { SEEN_RESET, SEEN_EOF };

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_W_30_whoever_cuts_the_peer_is_not_told_an_orderly_end, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(test_W_30_an_end_without_loss_is_orderly, world_setup, world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
