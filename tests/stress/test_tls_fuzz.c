/*
 * Bytes of TLS that are changed on their way, in both directions and at any moment: records are cut, repeated, left
 * out, swapped, given other headers, or have something from the corpus below put before them. A changed byte may end
 * the connection, in words; it never becomes a byte of the user's, and nothing hangs.
 *
 * TRAM_TLS_FUZZ_SECONDS=N: so long, instead of some hundred connections. TRAM_TLS_SEED=N: others than every day; what
 * fails names the seed of its connection, and TRAM_TLS_ONLY=N plays that one alone.
 */
#include <openssl/err.h>
#include <time.h>

#include "support/tls/ends.h"
#include "transports/tls/engine.h"

/* ---- The corpus: what peers may begin with, or say in between ---- */

struct sample {
    const char *bytes;
    size_t size;
};

#define SAMPLE(text)                                                                                                   \
    { text, sizeof text - 1 }

static const struct sample corpus[] = {
    SAMPLE("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    SAMPLE("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"),
    SAMPLE("\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80"), /* a hello of SSL 2 */
    SAMPLE("\x16\x03\x01\x00\x00"),                                     /* a handshake record of no length */
    SAMPLE("\x16\x03\x01\xff\xff"),                                     /* … of too much */
    SAMPLE("\x16\x03\x01\x40\x01"),                                     /* … of one byte too much */
    SAMPLE("\x16\x03\x01\x00\x04\x00\x00\x00\x00"),                     /* a hello request */
    SAMPLE("\x16\x03\x03\x00\x05\x18\x00\x00\x01\x01"),                 /* a key update, in the clear */
    SAMPLE("\x16\x03\x03\x00\x04\x14\x00\x00\x00"),                     /* an empty Finished */
    SAMPLE("\x16\x03\x01\x00\x06\x01\xff\xff\xff\x03\x03"),             /* a hello of 16 MB */
    SAMPLE("\x14\x03\x03\x00\x01\x01"),                                 /* change cipher spec */
    SAMPLE("\x14\x03\x03\x00\x01\x02"),
    SAMPLE("\x14\x03\x03\x00\x02\x01\x01"),
    SAMPLE("\x15\x03\x03\x00\x02\x01\x00"), /* close_notify, in the clear */
    SAMPLE("\x15\x03\x03\x00\x02\x01\x5a"), /* user_canceled */
    SAMPLE("\x15\x03\x03\x00\x02\x01\x64"), /* no_renegotiation */
    SAMPLE("\x15\x03\x03\x00\x02\x02\x28"), /* handshake_failure */
    SAMPLE("\x15\x03\x03\x00\x02\x09\x28"), /* of a level that there is not */
    SAMPLE("\x15\x03\x03\x00\x01\x02"),
    SAMPLE("\x17\x03\x03\x00\x00"), /* data of no length */
    SAMPLE("\x17\x03\x03\x00\x05hello"),
    SAMPLE("\x17\x03\x03\x00\x13xxxxxxxxxxxxxxxxxxx"),
    SAMPLE("\x18\x03\x03\x00\x03\x01\x40\x00"), /* a heartbeat that asks for too much */
    SAMPLE("\xff\xff\xff\xff\xff"),
    SAMPLE("\x00"),
};

/* ---- Two ends ---- */

struct side {
    struct tls_engine engine;
    struct side *peer;
    struct fuzz *fuzz;
    unsigned char bytes[400000]; /* that it has not read yet, from `begin` on */
    size_t size, begin;
    size_t piece;
    bool ended;
    unsigned writes;
    bool failed;
    size_t received;
    struct tls_failure failure;
};

struct fuzz {
    struct side client, server;
    uint64_t seed, random;
    unsigned changes;          /* still to be made */
    unsigned next_at;          /* at this write of any side */
    unsigned made;             /* that were */
    unsigned writes;           /* of both sides */
    unsigned char last[20000]; /* a former record */
    size_t last_size;
};

static uint64_t next_random(struct fuzz *fuzz) {
    fuzz->random ^= fuzz->random << 13;
    fuzz->random ^= fuzz->random >> 7;
    fuzz->random ^= fuzz->random << 17;
    return fuzz->random * 2685821657736338717ull;
}

static size_t below_of(struct fuzz *fuzz, size_t limit) {
    return (size_t)((next_random(fuzz) >> 16) % limit);
}

static ssize_t read_bytes(struct tls_engine *engine, void *memory, size_t size) {
    struct side *side = container_of(engine, struct side, engine);
    size_t have = side->size - side->begin;
    if (have == 0)
        return side->ended ? 0 : -EAGAIN;
    size_t count = have < size ? have : size;
    if (count > side->piece)
        count = side->piece;
    memcpy(memory, side->bytes + side->begin, count);
    side->begin += count;
    if (side->begin == side->size)
        side->begin = side->size = 0;
    return (ssize_t)count;
}

static void append(struct side *side, const void *data, size_t size) {
    if (size > sizeof side->bytes - side->size)
        return; /* cut off: one more change */
    memcpy(side->bytes + side->size, data, size);
    side->size += size;
}

/* ---- Changes ---- */

enum change {
    FLIP,
    CUT,
    DOUBLE,
    LOSE,
    INSERT,
    SAMPLE_BEFORE,
    SAMPLE_INSTEAD,
    HEADER,
    REPLAY,
    FLOOD,
    END,
    CHANGE_COUNT
};

static void flip(struct fuzz *fuzz, unsigned char *bytes, size_t size) {
    for (size_t i = 1 + below_of(fuzz, 4); i > 0; i--)
        bytes[below_of(fuzz, size)] ^= (unsigned char)(1u << below_of(fuzz, 8));
}

static void change_header(struct fuzz *fuzz, unsigned char *bytes, size_t size) {
    static const unsigned char types[] = {20, 21, 22, 23, 24, 0, 128, 255};
    if (size < 5)
        return;
    if (below_of(fuzz, 2))
        bytes[0] = types[below_of(fuzz, sizeof types)];
    else if (below_of(fuzz, 2))
        bytes[1 + below_of(fuzz, 2)] = (unsigned char)next_random(fuzz);
    else
        bytes[3 + below_of(fuzz, 2)] = (unsigned char)next_random(fuzz);
}

static void change(struct fuzz *fuzz, struct side *to, const void *data, size_t size) {
    static unsigned char bytes[20000];
    const struct sample *sample = &corpus[below_of(fuzz, sizeof corpus / sizeof *corpus)];
    size_t place = below_of(fuzz, size);
    assert_true(size <= sizeof bytes);
    memcpy(bytes, data, size);
    switch ((enum change)below_of(fuzz, CHANGE_COUNT)) {
    case FLIP:
        flip(fuzz, bytes, size);
        break;
    case CUT:
        size = place;
        break;
    case DOUBLE:
        append(to, bytes, size);
        break;
    case LOSE:
        return;
    case INSERT:
        append(to, bytes, place);
        append(to, sample->bytes, sample->size);
        append(to, bytes + place, size - place);
        return;
    case SAMPLE_BEFORE:
        append(to, sample->bytes, sample->size);
        break;
    case SAMPLE_INSTEAD:
        append(to, sample->bytes, sample->size);
        return;
    case HEADER:
        change_header(fuzz, bytes, size);
        break;
    case REPLAY:
        append(to, fuzz->last, fuzz->last_size);
        break;
    case FLOOD:
        for (int i = 0; i < 3000; i++)
            append(to, sample->bytes, sample->size);
        break;
    case END:
        append(to, bytes, place);
        to->ended = true;
        return;
    default:
        break;
    }
    append(to, bytes, size);
}

static void write_bytes(struct tls_engine *engine, const void *data, size_t size) {
    struct side *side = container_of(engine, struct side, engine);
    struct fuzz *fuzz = side->fuzz;
    if (side->peer->ended)
        return;
    if (fuzz->changes > 0 && fuzz->writes++ == fuzz->next_at) {
        fuzz->changes--;
        fuzz->made++;
        fuzz->next_at += 1 + (unsigned)below_of(fuzz, 3);
        change(fuzz, side->peer, data, size);
    } else {
        append(side->peer, data, size);
    }
    if (size <= sizeof fuzz->last) {
        memcpy(fuzz->last, data, size);
        fuzz->last_size = size;
    }
}

static const struct tls_below below = {.read = read_bytes, .write = write_bytes};

/* ---- One connection ---- */

static tram_tls_config *old_clients; /* TLS 1.2 */

static void side_start(struct world *world, struct fuzz *fuzz, struct side *side, struct side *peer,
                       const struct tls_engine_options *options) {
    side->fuzz = fuzz;
    side->peer = peer;
    side->piece = below_of(fuzz, 4) ? SIZE_MAX : 1 + below_of(fuzz, 200);
    side->size = side->begin = side->writes = side->received = 0;
    side->ended = side->failed = false;
    assert_int_equal(tram__tls_engine_start(&side->engine, world->loop, &below, options, &side->failure), 0);
}

/* A failure is one for ever, and has words. */
static void note_failure(struct side *side, int code) {
    char byte;
    struct tls_failure again;
    side->failed = true;
    assert_int_equal(side->failure.code, code);
    assert_true(side->failure.text[0] != '\0');
    assert_true(tram__tls_engine_read(&side->engine, &byte, 1, &again) <= 0);
    assert_true(tram__tls_engine_write(&side->engine, "x", 1, &again) < 0);
}

static bool shakes_hands(struct side *side) {
    if (side->failed || side->engine.established)
        return false;
    size_t before = side->size - side->begin;
    int result = tram__tls_engine_handshake(&side->engine, &side->failure);
    if (result < 0)
        note_failure(side, result);
    return result != 0 || side->size - side->begin != before;
}

/* What comes in is what went out at the other end, up to somewhere. */
static bool reads(struct side *side) {
    char bytes[3000];
    if (side->failed || !side->engine.established)
        return false;
    ssize_t got = tram__tls_engine_read(&side->engine, bytes, sizeof bytes, &side->failure);
    if (got > 0) {
        for (ssize_t i = 0; i < got; i++)
            assert_int_equal((unsigned char)bytes[i], (unsigned char)(side->received + (size_t)i));
        side->received += (size_t)got;
    } else if (got < 0 && got != -EAGAIN) {
        note_failure(side, (int)got);
    }
    return got > 0;
}

static void run_both(struct fuzz *fuzz) {
    unsigned turns = 0;
    bool moved = true;
    while (moved) {
        moved = shakes_hands(&fuzz->client);
        moved = shakes_hands(&fuzz->server) || moved;
        moved = reads(&fuzz->client) || moved;
        moved = reads(&fuzz->server) || moved;
        assert_int_equal(ERR_peek_error(), 0);
        assert_true(++turns < 400000);
    }
}

/* Data in sizes that cross records. Nothing is sent by a side that has failed. */
static void sends(struct side *side, size_t *sent) {
    static unsigned char bytes[40000];
    size_t size = 1 + below_of(side->fuzz, below_of(side->fuzz, 8) ? 300 : 17000);
    if (side->failed || !side->engine.established || side->engine.close_sent)
        return;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(*sent + i);
    int code = tram__tls_engine_write(&side->engine, bytes, size, &side->failure);
    if (code == 0)
        *sent += size;
    else
        note_failure(side, code);
}

static void talk(struct fuzz *fuzz) {
    size_t sent[2] = {0, 0};
    run_both(fuzz);
    for (int round = 0; round < 3; round++) {
        sends(&fuzz->client, &sent[0]);
        if (!fuzz->client.failed && fuzz->client.engine.established && below_of(fuzz, 8) == 0)
            (void)tram__tls_engine_update_keys(&fuzz->client.engine, &fuzz->client.failure);
        sends(&fuzz->server, &sent[1]);
        run_both(fuzz);
    }
    tram__tls_engine_close(&fuzz->client.engine);
    run_both(fuzz);
    tram__tls_engine_close(&fuzz->server.engine);
    run_both(fuzz);
    if (fuzz->made == 0) { /* nobody has changed anything */
        assert_false(fuzz->client.failed || fuzz->server.failed);
        assert_int_equal(fuzz->server.received, sent[0]);
        assert_int_equal(fuzz->client.received, sent[1]);
        assert_true(fuzz->client.engine.close_received && fuzz->server.engine.close_received);
    }
    assert_true(fuzz->server.received <= sent[0] && fuzz->client.received <= sent[1]);
}

static tram_buffer *session; /* of a former connection */

static uint64_t playing;

/* The sanitizers end the process without a word of ours. */
static void name_seed(void) {
    if (playing)
        fprintf(stderr, "TRAM_TLS_ONLY=%llu\n", (unsigned long long)playing);
}

static void play(struct world *world, struct fuzz *fuzz, uint64_t seed) {
    playing = seed;
    fuzz->seed = seed;
    fuzz->random = seed * 6364136223846793005ull + 88172645463325252ull;
    fuzz->writes = fuzz->made = 0;
    fuzz->last_size = 0;
    for (int i = 0; i < 4; i++)
        next_random(fuzz);
    fuzz->changes = below_of(fuzz, 16) ? 1 + (unsigned)below_of(fuzz, 3) : 0;
    fuzz->next_at = (unsigned)below_of(fuzz, 10);
    bool old = below_of(fuzz, 3) == 0;
    side_start(world, fuzz, &fuzz->client, &fuzz->server,
               &(struct tls_engine_options){.config = old ? old_clients : clients,
                                            .server_hostname = "localhost",
                                            .session = old || below_of(fuzz, 2) ? NULL : session});
    side_start(world, fuzz, &fuzz->server, &fuzz->client,
               &(struct tls_engine_options){.config = servers, .server = true});
    talk(fuzz);
    if (!old && !session && !fuzz->client.failed && fuzz->client.engine.established)
        assert_int_equal(tram__tls_engine_session(&fuzz->client.engine, &session), 0);
    tram__tls_engine_free(&fuzz->client.engine);
    tram__tls_engine_free(&fuzz->server.engine);
    assert_int_equal(ERR_peek_error(), 0);
    playing = 0;
}

static unsigned long from_environment(const char *name, unsigned long otherwise) {
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 10) : otherwise;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void test_S_4_S_13_changed_bytes_never_become_the_users(void **state) {
    static struct fuzz fuzz;
    const double limit = (double)from_environment("TRAM_TLS_FUZZ_SECONDS", 0), begin = seconds_now();
    const uint64_t first = from_environment("TRAM_TLS_SEED", 1), only = from_environment("TRAM_TLS_ONLY", 0);
    unsigned long failed = 0, changed = 0, count = 0;
    for (; limit > 0 ? seconds_now() - begin < limit : count < (only ? 1 : 500); count++) {
        play(*state, &fuzz, only ? only : first + count);
        failed += fuzz.client.failed || fuzz.server.failed;
        changed += fuzz.made > 0;
    }
    print_message("%lu connections, %lu changed, %lu of them failed\n", count, changed, failed);
    assert_true(only || (changed > count / 2 && failed > count / 4 && failed <= changed));
    tram_buffer_release(session);
    session = NULL;
}

static int setup(void **state) {
    tls_setup(state);
    atexit(name_seed);
    old_clients =
        config_make(&(tram_tls_options){.ca = source_of(authority.ca->chain_pem), .max_version = TRAM_TLS_1_2});
    return 0;
}

static int teardown(void **state) {
    tram_tls_config_release(old_clients);
    return tls_teardown(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_S_4_S_13_changed_bytes_never_become_the_users, world_setup,
                                        world_teardown),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
