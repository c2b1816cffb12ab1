/*
 * Peers who begin a TLS handshake and end it somewhere, in either role: they vanish, reset, send garbage, speak plain
 * HTTP, or stall until their time is over. Memory and descriptors are what they were, and a neighbour is served.
 *
 * TRAM_TLS_ATTACKS=N: so many, instead of a few hundred. TRAM_TLS_SEED=N: others than every day.
 */
#include <malloc.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/stream.h"
#include "support/tls/ends.h"
#include "support/witness.h"

enum { TOGETHER = 16, GARBAGE = 20000, TIMEOUT_MS = 250, KEPT = 64 * (2048 + 16384) };

enum way { VANISHES, RESETS, SENDS_GARBAGE, SPEAKS_HTTP, STALLS, WAY_COUNT };

static const char *const way_names[] = {"vanish", "reset", "garbage", "http", "stall"};

/* One that is at work: a client of our server, or a server whose client is ours. */
struct enemy {
    int fd; /* -1: none */
    SSL *ssl;
    BIO *in, *out;
    enum way way;
    size_t cut; /* so many bytes are sent before it does what it is here for */
    size_t sent;
    bool acted;
    tram_future *connecting; /* of our client; NULL: it is our server that is attacked */
};

struct battle {
    struct world *world;
    struct witness_tally tally;
    tram_server *server;
    tram_server *calm; /* the neighbour's, with all the time in the world */
    uint16_t port;
    int listener; /* of enemies that are servers */
    uint16_t enemy_port;
    SSL_CTX *client_context, *server_context;
    struct enemy enemies[TOGETHER];
    unsigned begun, over;
    unsigned by_way[WAY_COUNT], finished; /* how many got through their handshake */
    uint64_t random;
};

static uint64_t next_random(struct battle *battle) {
    battle->random ^= battle->random << 13;
    battle->random ^= battle->random >> 7;
    battle->random ^= battle->random << 17;
    return battle->random;
}

/* ---- Our side ---- */

struct visitor {
    tram_protocol base;
    struct witness_tally *tally;
};

static int visitor_made(tram_protocol *protocol, tram_transport *transport) {
    ((struct visitor *)protocol)->tally->made++;
    return tram_transport_close(transport);
}

static int visitor_lost(tram_protocol *protocol, const tram_error *error) {
    (void)error;
    ((struct visitor *)protocol)->tally->lost++;
    return 0;
}

static void visitor_released(tram_protocol *protocol) {
    ((struct visitor *)protocol)->tally->released++;
    free(protocol);
}

static const tram_protocol_ops visitor_ops = {
    .connection_made = visitor_made, .connection_lost = visitor_lost, .released = visitor_released};

static int visitor_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    struct visitor *visitor = calloc(1, sizeof *visitor);
    visitor->base.ops = &visitor_ops;
    visitor->tally = arg;
    visitor->tally->protocols++;
    *ret_protocol = &visitor->base;
    return 0;
}

/* Waits for something to happen, but not for long. */
static void turn(struct battle *battle) {
    tram_loop *loop = battle->world->loop;
    uint64_t timeout_ns;
    struct pollfd poll_fd = {.fd = tram_loop_backend_fd(loop), .events = POLLIN};
    assert_int_equal(tram_loop_prepare(loop, &timeout_ns), 0);
    if (timeout_ns > 0)
        poll(&poll_fd, 1, 1);
    assert_true(tram_loop_dispatch(loop) >= 0);
}

/* ---- Theirs ---- */

static SSL_CTX *enemy_context(bool server) {
    SSL_CTX *context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    assert_non_null(context);
    if (server) {
        assert_int_equal(SSL_CTX_use_certificate(context, authority.server->x509), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(context, authority.server->key), 1);
    }
    return context;
}

static void enemy_begin(struct battle *battle, struct enemy *enemy) {
    bool is_server = next_random(battle) % 3 == 0;
    char port[8];
    *enemy = (struct enemy){.way = (enum way)(next_random(battle) % WAY_COUNT)};
    enemy->cut = enemy->way == SPEAKS_HTTP ? 0 : next_random(battle) % (is_server ? 1300 : 600);
    enemy->ssl = SSL_new(is_server ? battle->server_context : battle->client_context);
    enemy->in = BIO_new(BIO_s_mem());
    enemy->out = BIO_new(BIO_s_mem());
    assert_true(enemy->ssl && enemy->in && enemy->out);
    SSL_set_bio(enemy->ssl, enemy->in, enemy->out);
    /* With TLS 1.2 the server may be done before its client is, which then would stall for ever, and may. */
    if (enemy->way != STALLS && next_random(battle) % 2)
        SSL_set_max_proto_version(enemy->ssl, TLS1_2_VERSION);
    if (is_server) {
        SSL_set_accept_state(enemy->ssl);
        snprintf(port, sizeof port, "%u", battle->enemy_port);
        const tram_connection_options options = {.tls = clients,
                                                 .server_hostname = "localhost",
                                                 .tls_handshake_timeout_ns = TIMEOUT_MS * 1000000ull,
                                                 .tls_shutdown_timeout_ns = TIMEOUT_MS * 1000000ull};
        assert_int_equal(tram_loop_create_connection(battle->world->loop, visitor_factory, &battle->tally, "127.0.0.1",
                                                     port, &options, &enemy->connecting),
                         0);
        while ((enemy->fd = accept(battle->listener, NULL, NULL)) < 0)
            turn(battle);
    } else {
        SSL_set_connect_state(enemy->ssl);
        enemy->fd = tcp_connect(battle->port);
    }
    assert_true(enemy->fd >= 0);
    set_blocking(enemy->fd, false);
    battle->by_way[enemy->way]++;
    battle->begun++;
}

static void enemy_end(struct battle *battle, struct enemy *enemy, bool reset) {
    if (reset)
        close_with_reset(enemy->fd);
    else
        close(enemy->fd);
    battle->finished += SSL_is_init_finished(enemy->ssl);
    SSL_free(enemy->ssl);
    ERR_clear_error();
    enemy->fd = -1;
    battle->over++;
}

/* What it is here for. True: it is over for it. */
static bool enemy_acts(struct battle *battle, struct enemy *enemy) {
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    char garbage[GARBAGE];
    enemy->acted = true;
    switch (enemy->way) {
    case SENDS_GARBAGE:
        for (size_t i = 0; i < sizeof garbage; i++)
            garbage[i] = (char)(next_random(battle) >> 32);
        send(enemy->fd, garbage, sizeof garbage, MSG_NOSIGNAL);
        return false;
    case SPEAKS_HTTP:
        send(enemy->fd, http, sizeof http - 1, MSG_NOSIGNAL);
        return false;
    case STALLS: /* nobody's time is limited once the handshake is done */
        return SSL_is_init_finished(enemy->ssl);
    default:
        return true;
    }
}

/* Sends what its TLS has to say, up to the cut. False: it has got there. */
static bool enemy_sends(struct enemy *enemy) {
    char bytes[4096];
    while (enemy->sent < enemy->cut) {
        size_t left = enemy->cut - enemy->sent;
        int size = BIO_read(enemy->out, bytes, (int)(left < sizeof bytes ? left : sizeof bytes));
        if (size <= 0)
            return true;
        if (send(enemy->fd, bytes, (size_t)size, MSG_NOSIGNAL) < 0)
            return false;
        enemy->sent += (size_t)size;
    }
    return false;
}

static void enemy_goes_on(struct battle *battle, struct enemy *enemy) {
    char bytes[20000];
    ssize_t got = recv(enemy->fd, bytes, sizeof bytes, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        enemy_end(battle, enemy, got < 0);
        return;
    }
    if (enemy->acted) /* it waits for the end */
        return;
    if (got > 0)
        BIO_write(enemy->in, bytes, (int)got);
    if (SSL_do_handshake(enemy->ssl) == 1)
        SSL_write(enemy->ssl, bytes, 100); /* something to be cut off */
    ERR_clear_error();
    if (!enemy_sends(enemy) && enemy_acts(battle, enemy))
        enemy_end(battle, enemy, enemy->way == RESETS);
}

static void enemy_clear(struct enemy *enemy) {
    if (enemy->connecting)
        (void)tram_future_result(enemy->connecting, NULL); /* nobody is surprised that it failed */
    tram_future_release(enemy->connecting);
    enemy->connecting = NULL;
}

static bool enemy_done(const struct enemy *enemy) {
    return enemy->fd < 0 && (!enemy->connecting || tram_future_done(enemy->connecting));
}

/* So many attacks, some of them at the same time; each has its end. */
static void fight(struct battle *battle, unsigned count) {
    unsigned target = battle->begun + count;
    time_t begin = time(NULL);
    while (battle->over < target) {
        for (size_t i = 0; i < TOGETHER; i++) {
            struct enemy *enemy = &battle->enemies[i];
            if (enemy->fd >= 0)
                enemy_goes_on(battle, enemy);
            if (!enemy_done(enemy))
                continue;
            enemy_clear(enemy);
            if (battle->begun < target)
                enemy_begin(battle, enemy);
        }
        turn(battle);
        assert_true(time(NULL) - begin < 230); /* somebody waits for ever */
    }
    for (size_t i = 0; i < TOGETHER; i++) {
        while (!enemy_done(&battle->enemies[i]))
            turn(battle);
        enemy_clear(&battle->enemies[i]);
    }
}

static bool is_alone(void *arg) {
    const struct battle *battle = arg;
    return tram_server_connection_count(battle->server) == 0 && battle->tally.released + 1 == battle->tally.protocols;
}

struct costs {
    size_t loop_bytes, heap_bytes;
    int descriptors;
};

/* When all of them have gone. */
static struct costs costs_of(struct battle *battle) {
    run_until_true(battle->world, is_alone, battle);
    run_to_rest(battle->world);
    return (struct costs){battle->world->live_bytes, mallinfo2().uordblks, open_descriptors()};
}

static unsigned from_environment(const char *name, unsigned otherwise) {
    const char *text = getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static tram_server *serve_witness(struct battle *battle, uint64_t timeout_ns) {
    tram_future *future;
    void *server = NULL;
    const tram_server_options options = {
        .tls = servers, .tls_handshake_timeout_ns = timeout_ns, .tls_shutdown_timeout_ns = timeout_ns};
    assert_int_equal(tram_loop_create_server(battle->world->loop, witness_server, &battle->tally, "127.0.0.1", "0",
                                             &options, &future),
                     0);
    assert_int_equal(tram_loop_run_until_complete(battle->world->loop, future), 0);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    return server;
}

static void battle_open(struct battle *battle, struct world *world) {
    *battle = (struct battle){.world = world, .random = 88172645463325252ull + from_environment("TRAM_TLS_SEED", 0)};
    for (size_t i = 0; i < TOGETHER; i++)
        battle->enemies[i].fd = -1;
    battle->server = serve_witness(battle, TIMEOUT_MS * 1000000ull);
    battle->calm = serve_witness(battle, 0);
    battle->port = server_port(battle->server);
    battle->listener = tcp_listener(TOGETHER, &battle->enemy_port);
    set_blocking(battle->listener, false);
    battle->client_context = enemy_context(false);
    battle->server_context = enemy_context(true);
}

static void battle_close(struct battle *battle) {
    tram_server_close(battle->server);
    tram_server_close(battle->calm);
    tram_server_abort_clients(battle->calm);
    tram_server_release(battle->server);
    tram_server_release(battle->calm);
    run_to_rest(battle->world);
    close(battle->listener);
    SSL_CTX_free(battle->client_context);
    SSL_CTX_free(battle->server_context);
    assert_int_equal(ERR_peek_error(), 0);
}

/* An honest client that stays. */
static struct recorder *neighbour_open(struct battle *battle) {
    tram_future *future;
    char port[8];
    snprintf(port, sizeof port, "%u", server_port(battle->calm));
    next_client = recorder_new(battle->world, NULL);
    next_client->quiet_data = true;
    const tram_connection_options options = {.tls = clients, .server_hostname = "localhost"};
    assert_int_equal(
        tram_loop_create_connection(battle->world->loop, client_factory, NULL, "127.0.0.1", port, &options, &future),
        0);
    assert_int_equal(tram_loop_run_until_complete(battle->world->loop, future), 0);
    tram_future_release(future);
    return next_client;
}

static void neighbour_echoes(struct recorder *neighbour) {
    size_t before = neighbour->received;
    assert_int_equal(tram_transport_write(neighbour->base.transport, "still here", 10), 0);
    run_until_received(neighbour, before + 10);
}

static void test_S_4_S_5_handshakes_that_end_anywhere_leave_nothing(void **state) {
    static struct battle battle;
    const unsigned attacks = from_environment("TRAM_TLS_ATTACKS", 300), round = 100;
    battle_open(&battle, *state);
    struct recorder *neighbour = neighbour_open(&battle);
    fight(&battle, 100); /* what is made once is made */
    struct costs before = costs_of(&battle);
    for (unsigned done = 0; done < attacks; done += round) {
        fight(&battle, round);
        neighbour_echoes(neighbour);
    }
    struct costs after = costs_of(&battle);
    print_message("%u attacks (%u through the handshake): loop %zu -> %zu bytes, heap %zu -> %zu\n", battle.begun,
                  battle.finished, before.loop_bytes, after.loop_bytes, before.heap_bytes, after.heap_bytes);
    for (size_t way = 0; way < WAY_COUNT; way++) {
        print_message("  %u %s\n", battle.by_way[way], way_names[way]);
        assert_true(battle.by_way[way] > 20);
    }
    assert_true(battle.finished > 0);
    assert_int_equal(after.descriptors, before.descriptors);
    assert_true(after.loop_bytes <= before.loop_bytes + KEPT);
    assert_true(after.heap_bytes <= before.heap_bytes + KEPT); /* of a sanitizer it is 0 */
    assert_int_equal(battle.tally.wrong, 0);
    assert_int_equal(battle.world->exceptions, 0);
    tram_transport_abort(neighbour->base.transport);
    run_until(*state, &neighbour->was_released);
    battle_close(&battle);
    assert_true(witness_paired(&battle.tally));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_S_4_S_5_handshakes_that_end_anywhere_leave_nothing, world_setup,
                                        world_teardown),
    };
    return cmocka_run_group_tests(tests, tls_setup, tls_teardown);
}
