/*
 * Whatever comes where a header of the PROXY protocol is expected: headers of both versions that are right, of which
 * some bytes are changed, moved, doubled or left out. The parser sees each in memory of exactly its size, and cut at
 * every place; a server gets them piece by piece and must do what the parser says of the whole.
 *
 * TRAM_PROXY_FUZZ_SECONDS=N: so long, instead of a few thousand. TRAM_PROXY_SEED=N: others than every day; what fails
 * names the seed of its header, and TRAM_PROXY_ONLY=N plays that one alone.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "support/support.h"
#include "transports/proxy/header.h"
#include <tram/unix.h>

/* ---- A header, and what becomes of it ---- */

static uint64_t state_of_random, playing;

/* The sanitizers end the process without a word of ours. */
static void name_seed(void) {
    if (playing)
        fprintf(stderr, "TRAM_PROXY_ONLY=%llu\n", (unsigned long long)playing);
}

static unsigned pick(unsigned below) {
    state_of_random ^= state_of_random << 13;
    state_of_random ^= state_of_random >> 7;
    state_of_random ^= state_of_random << 17;
    return (unsigned)(state_of_random * 2685821657736338717ull >> 33) % below;
}

static void begin_case(uint64_t seed) {
    playing = seed;
    state_of_random = seed * 6364136223846793005ull + 88172645463325252ull;
    for (int i = 0; i < 4; i++)
        (void)pick(2);
}

struct message {
    char bytes[TRAM_PROXY_HEADER_MAX + 1000];
    size_t size;
};

static tram_socket_address address_of(int family) {
    tram_socket_address address;
    char text[60];
    snprintf(text, sizeof text, family == AF_INET ? "%u.%u.%u.%u" : "%x:%x::%x:%x", pick(256), pick(256), pick(256),
             pick(256));
    if (family == AF_UNIX)
        assert_int_equal(tram_socket_address_unix(text, 1 + pick((unsigned)strlen(text)), &address), 0);
    else
        assert_int_equal(tram_socket_address_inet(text, pick(2) ? "0" : "65535", &address), 0);
    return address;
}

static void put(struct message *message, const void *bytes, size_t size) {
    if (size > sizeof message->bytes - message->size)
        size = sizeof message->bytes - message->size;
    memcpy(message->bytes + message->size, bytes, size);
    message->size += size;
}

/* Behind the addresses of version 2, some of them near the limit. A checksum is one that is wrong. */
static void put_tlvs(struct message *message) {
    static const unsigned char types[] = {1, 2, 3, 4, 5, 0x20, 0x21, 0x30, 0xe0, 0xff};
    for (unsigned count = pick(4); count; count--) {
        static const char value[4000];
        size_t size = pick(20) ? pick(30) : pick(sizeof value);
        const unsigned char begin[3] = {types[pick(sizeof types)], (unsigned char)(size >> 8), (unsigned char)size};
        if (begin[0] == 3 && pick(8))
            continue;
        put(message, begin, sizeof begin);
        put(message, value, size);
    }
    size_t rest = message->size - 16;
    message->bytes[14] = (char)(rest >> 8);
    message->bytes[15] = (char)rest;
}

static void make_header(struct message *message) {
    static const int families[] = {AF_INET, AF_INET6, AF_UNIX, 0};
    int family = families[pick(4)];
    tram_proxy_header header = {.version = 1 + (int)pick(2)};
    tram_socket_address source, destination;
    if (family) {
        source = address_of(family);
        destination = address_of(family);
        header.source = &source;
        header.destination = &destination;
    }
    ssize_t size = tram__proxy_format(&header, message->bytes);
    assert_true(size > 0);
    message->size = (size_t)size;
    if (header.version == 2 && pick(2))
        put_tlvs(message);
}

static void change(struct message *message) {
    size_t at = pick((unsigned)message->size), length = pick((unsigned)(message->size - at)) + 1;
    char *bytes = message->bytes + at;
    switch (pick(6)) {
    case 0:
        if (length > sizeof message->bytes - message->size)
            return;
        memmove(bytes + length, bytes, message->size - at);
        message->size += length;
        break;
    case 1:
        memmove(bytes, bytes + length, message->size - at - length);
        message->size -= length;
        break;
    case 2:
        *bytes ^= (char)(1u << pick(8));
        break;
    case 3:
        *bytes = "\r\n 0:\0\xff\1"[pick(8)];
        break;
    default: /* where it decides most */
        message->bytes[pick(message->size < 20 ? (unsigned)message->size : 20)] = (char)pick(256);
    }
}

/* One in four is as it should be. */
static void make_message(struct message *message) {
    make_header(message);
    for (unsigned changes = pick(4); changes && message->size; changes--)
        change(message);
}

/* ---- The parser ---- */

static int parse(const struct message *message, size_t size, struct proxy_header *ret_header) {
    char *exact = malloc(size ? size : 1);
    assert_non_null(exact);
    memcpy(exact, message->bytes, size);
    int status = tram__proxy_parse(exact, size, ret_header);
    if (status == 1) {
        assert_true(ret_header->size <= size && ret_header->tlvs_at <= ret_header->size);
        assert_true(ret_header->size <= TRAM_PROXY_HEADER_MAX);
        assert_true(ret_header->local || (ret_header->source.size && ret_header->destination.size));
        for (unsigned type = 0; type < 256; type++) {
            size_t length = 0;
            const char *value = tram__proxy_tlv(exact + ret_header->tlvs_at, ret_header->size - ret_header->tlvs_at,
                                                (uint8_t)type, &length);
            assert_true(!value || (value >= exact && value + length <= exact + ret_header->size));
        }
    }
    free(exact);
    return status;
}

/* More bytes are needed up to a place from which on it is the same header, or none, whatever follows. */
static int judge(const struct message *message) {
    struct proxy_header header, before = {0};
    int verdict = 0;
    for (size_t size = 0; size <= message->size; size++) {
        int status = parse(message, size, &header);
        assert_true(status == 1 || status == 0 || status == -EPROTO);
        if (verdict == 0 && status == 1) {
            assert_int_equal(header.size, size);
            before = header;
        }
        if (verdict)
            assert_int_equal(status, verdict);
        if (verdict == 1)
            assert_memory_equal(&header, &before, sizeof header);
        verdict = status;
    }
    return verdict;
}

/* ---- A server ---- */

struct site {
    tram_protocol guest; /* of the one connection that there is at a time */
    struct world *world;
    tram_server *server;
    tram_socket_address address;
    const struct message *message;
    bool accepted, made, lost, released;
    char received[sizeof((struct message *)NULL)->bytes];
    size_t size;
};

static struct site *site_of(tram_protocol *protocol) {
    return (struct site *)(void *)protocol;
}

static void assert_same_address(tram_transport *transport, const char *key, const tram_socket_address *expected) {
    const tram_socket_address *address = tram_transport_get_extra_info(transport, key, NULL);
    assert_non_null(address);
    assert_int_equal(address->size, expected->size);
    assert_memory_equal(&address->address, &expected->address, expected->size);
}

static int guest_made(tram_protocol *self, tram_transport *transport) {
    struct site *site = site_of(self);
    struct proxy_header header;
    site->made = true;
    assert_int_equal(tram__proxy_parse(site->message->bytes, site->message->size, &header), 1);
    if (!header.local) {
        assert_same_address(transport, "peername", &header.source);
        assert_same_address(transport, "sockname", &header.destination);
    }
    return 0;
}

static int guest_received(tram_protocol *self, const void *data, size_t size) {
    struct site *site = site_of(self);
    assert_true(site->made && size <= sizeof site->received - site->size);
    memcpy(site->received + site->size, data, size);
    site->size += size;
    return 0;
}

static int guest_lost(tram_protocol *self, const tram_error *error) {
    assert_null(error);
    site_of(self)->lost = true;
    return 0;
}

static void guest_released(tram_protocol *self) {
    site_of(self)->released = true;
}

static const tram_protocol_ops guest_ops = {.connection_made = guest_made,
                                            .data_received = guest_received,
                                            .connection_lost = guest_lost,
                                            .released = guest_released};

static int make_guest(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct site *site = arg;
    (void)loop;
    site->guest = (tram_protocol){.ops = &guest_ops};
    site->accepted = true;
    *ret_protocol = &site->guest;
    return 0;
}

static bool is_done(void *arg) {
    return tram_future_done(arg);
}

static void open_site(struct site *site, struct world *world) {
    char name[40] = "";
    size_t size = 1 + (size_t)snprintf(name + 1, sizeof name - 1, "tram-proxy-fuzz-%d", (int)getpid());
    const tram_unix_server_options options = {.proxy_protocol = true, .proxy_timeout_ns = TRAM_FOREVER};
    tram_future *future;
    void *server;
    site->world = world;
    assert_int_equal(tram_socket_address_unix(name, size, &site->address), 0);
    assert_int_equal(tram_loop_create_unix_server(world->loop, make_guest, site, name, size, &options, &future), 0);
    run_until_true(world, is_done, future);
    assert_int_equal(tram_future_result(future, &server), 0);
    tram_future_release(future);
    site->server = server;
}

static void close_site(struct site *site) {
    tram_server_close(site->server);
    tram_server_release(site->server);
    run_to_rest(site->world);
}

/* When all has come and the peer has ended. */
static void assert_outcome(const struct site *site, int verdict) {
    const struct message *message = site->message;
    struct proxy_header header;
    assert_int_equal(site->made, verdict == 1);
    assert_int_equal(site->lost, verdict == 1);
    if (verdict != 1)
        return;
    (void)tram__proxy_parse(message->bytes, message->size, &header);
    assert_int_equal(site->size, message->size - header.size);
    assert_memory_equal(site->received, message->bytes + header.size, site->size);
}

/* With a few bytes of the user's behind it. */
static void serve(struct site *site, struct message *message) {
    put(message, "data", pick(5));
    site->message = message;
    site->accepted = site->made = site->lost = site->released = false;
    site->size = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&site->address.address, site->address.size), 0);
    run_until(site->world, &site->accepted);
    size_t piece = pick(3) ? 1 + pick(60) : message->size;
    for (size_t at = 0; at < message->size; at += piece) {
        size_t size = message->size - at < piece ? message->size - at : piece;
        if (send(fd, message->bytes + at, size, MSG_NOSIGNAL) < 0)
            break; /* it has heard enough */
        run_ticks(site->world, 1);
    }
    shutdown(fd, SHUT_WR);
    run_until(site->world, &site->released);
    struct proxy_header header;
    assert_outcome(site, parse(message, message->size, &header));
    close(fd);
}

/* ---- Both, for as long as is wanted ---- */

static unsigned long from_environment(const char *name, unsigned long otherwise) {
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 10) : otherwise;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct tally {
    unsigned long headers, wrong, unfinished;
};

static void play_all(struct site *site, unsigned long usual) {
    static struct message message;
    const double limit = (double)from_environment("TRAM_PROXY_FUZZ_SECONDS", 0) / 2, begin = seconds_now();
    const uint64_t first = from_environment("TRAM_PROXY_SEED", 1), only = from_environment("TRAM_PROXY_ONLY", 0);
    struct tally tally = {0};
    unsigned long count = 0;
    for (; limit > 0 ? seconds_now() - begin < limit : count < (only ? 1 : usual); count++) {
        begin_case(only ? only : first + count);
        make_message(&message);
        if (site)
            serve(site, &message);
        int verdict = judge(&message);
        tally.headers += verdict == 1;
        tally.wrong += verdict < 0;
        tally.unfinished += verdict == 0;
        playing = 0;
    }
    print_message("%lu: %lu headers, %lu wrong, %lu unfinished\n", count, tally.headers, tally.wrong, tally.unfinished);
    assert_true(only || (tally.headers > count / 5 && tally.wrong > count / 5 && tally.unfinished > 0));
}

static void test_the_parser_takes_anything(void **state) {
    (void)state;
    play_all(NULL, 1000);
}

static void test_Y_6_a_server_takes_anything_in_pieces(void **state) {
    static struct site site;
    open_site(&site, *state);
    play_all(&site, 500);
    close_site(&site);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_parser_takes_anything),
        cmocka_unit_test_setup_teardown(test_Y_6_a_server_takes_anything_in_pieces, world_setup, world_teardown),
    };
    atexit(name_seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
