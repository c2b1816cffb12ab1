/* When bytes prove to be bulk, and between which sockets the kernel may move it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>

#include "core/base/limits.h"
#include "transports/proxy/splice.h"

static const struct transport_kind native = {.sendfile = SENDFILE_NATIVE}, other = {.sendfile = SENDFILE_BLOCKS};

struct way {
    tram_transport ends[2];
    tram_protocol protocols[2];
    struct splice splice;
};

static void way_init(struct way *way) {
    memset(way, 0, sizeof *way);
    for (int i = 0; i < 2; i++) {
        way->ends[i].io.kind = (const struct io_kind *)(const void *)&native;
        way->ends[i].peer.sin6_family = AF_INET;
        way->protocols[i].transport = &way->ends[i];
    }
    way->splice.from = &way->protocols[0];
    way->splice.to = &way->protocols[1];
}

#define BEGIN  TRAM_SPLICE_BEGIN
#define END    TRAM_SPLICE_END
#define PIECES 10

/* The last piece is the one that makes it bulk, and none before. */
static void test_large_pieces_make_bulk(void **state) {
    (void)state;
    static const struct {
        size_t sizes[PIECES]; /* 0: no more */
        bool bulk;
    } cases[] = {
        {{TRAM_SPLICE_AFTER}, true},
        {{2 * TRAM_SPLICE_AFTER}, true},
        {{TRAM_SPLICE_AFTER - 1}, false},
        {{TRAM_SPLICE_AFTER - BEGIN, BEGIN}, true},
        {{TRAM_SPLICE_AFTER - BEGIN, BEGIN - 1}, false},       /* does not count, … */
        {{TRAM_SPLICE_AFTER - BEGIN, BEGIN - 1, BEGIN}, true}, /* … and forgets nothing */
        {{TRAM_SPLICE_AFTER - BEGIN, END, BEGIN}, true},       /* nor does this, … */
        {{TRAM_SPLICE_AFTER - BEGIN, END - 1, BEGIN}, false},  /* … but this */
        {{BEGIN, END - 1, TRAM_SPLICE_AFTER - 1}, false},      /* all of it */
        {{BEGIN, END - 1, TRAM_SPLICE_AFTER}, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct way way;
        way_init(&way);
        for (size_t j = 0; j < PIECES && cases[i].sizes[j]; j++) {
            bool last = j + 1 == PIECES || !cases[i].sizes[j + 1];
            if (tram__splice_update_estimate(&way.splice, cases[i].sizes[j]) != (last && cases[i].bulk))
                fail_msg("case %zu, piece %zu", i, j);
        }
        if (cases[i].bulk)
            assert_int_equal(way.splice.bulk, TRAM_SPLICE_AFTER); /* so that small ones end it soon */
    }
}

static void over_ipv6(struct way *way) {
    way->ends[0].peer.sin6_family = way->ends[1].peer.sin6_family = AF_INET6;
}

static void from_unix(struct way *way) {
    way->ends[0].peer.sin6_family = AF_UNIX;
}

static void to_unix(struct way *way) {
    way->ends[1].peer.sin6_family = AF_UNIX;
}

static void from_a_layer(struct way *way) {
    way->ends[0].flags = T_LAYERED;
}

static void to_a_layer(struct way *way) {
    way->ends[1].flags = T_LAYERED;
}

static void from_what_is_no_socket(struct way *way) {
    way->ends[0].io.kind = (const struct io_kind *)(const void *)&other;
}

static void to_what_is_no_socket(struct way *way) {
    way->ends[1].io.kind = (const struct io_kind *)(const void *)&other;
}

/* Asked once: what was none stays none, which spares asking for each piece. */
static void test_it_is_moved_between_tcp_sockets_only(void **state) {
    (void)state;
    static const struct {
        void (*make)(struct way *way);
        bool moved;
    } cases[] = {{over_ipv6, true},
                 {from_unix, false},
                 {to_unix, false},
                 {from_a_layer, false},
                 {to_a_layer, false},
                 {from_what_is_no_socket, false},
                 {to_what_is_no_socket, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct way way;
        way_init(&way);
        cases[i].make(&way);
        assert_int_equal(tram__splice_update_estimate(&way.splice, TRAM_SPLICE_AFTER), cases[i].moved);
        for (int j = 0; j < 2; j++) {
            way.ends[j].io.kind = (const struct io_kind *)(const void *)&native;
            way.ends[j].peer.sin6_family = AF_INET;
            way.ends[j].flags = 0;
        }
        assert_int_equal(tram__splice_update_estimate(&way.splice, TRAM_SPLICE_AFTER), cases[i].moved);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_pieces_make_bulk),
        cmocka_unit_test(test_it_is_moved_between_tcp_sockets_only),
    };
    return cmocka_run_group_tests_name("proxy_splice", tests, NULL, NULL);
}
