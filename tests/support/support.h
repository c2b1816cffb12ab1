/*
 * What the tests share: a loop whose memory, descriptors, log and exceptions are watched, a protocol that writes down
 * what happens to it, and sockets to talk to.
 */
#ifndef TRAM_TESTS_SUPPORT_H
#define TRAM_TESTS_SUPPORT_H

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <tram/tram.h>

/* ---- A watched loop ---- */

struct world {
    tram_loop *loop;
    size_t live_blocks; /* allocated by the loop and not freed */
    size_t live_bytes;  /* … and their sizes */
    size_t peak_bytes;  /* the highest live_bytes since the test last set it */
    size_t allocations; /* ever */
    size_t fail_after;  /* allocations that still succeed; SIZE_MAX: all */
    bool fail_once;     /* only one fails then, and not all that follow */
    size_t failures;    /* allocations that failed so */
    size_t fail_size;   /* those of at least so much fail; 0: none */
    int descriptors;    /* open when the test began */
    sigset_t blocked;   /* signals, then */
    sigset_t pending;
    char trace[8192];    /* what recorders and steps wrote down, separated by spaces */
    unsigned exceptions; /* records that the exception handler got */
    int exception_code;  /* of the last one */
    char exception[256]; /* its message */
    const void *exception_user;
    tram_transport *exception_transport;
    tram_protocol *exception_protocol;
    int exception_fd;
    bool trace_reports; /* each record adds reported:NAME to the trace */
    unsigned warnings;  /* log lines */
    unsigned errors;
    unsigned debugs;
    char log[4096]; /* all lines */
    tram_loop_options options;
    tram_allocator allocator;
};

/*
 * cmocka fixtures: setup gives *state a struct world with a loop; teardown frees the loop and checks that all memory
 * went back, that no descriptor was left, and that what the thread has blocked of signals and what pends is as it was
 * before the test: whoever blocks SIGPIPE around a call gives it back. world_reopen() makes a fresh loop after changes
 * of world->options.
 */
int world_setup(void **state);
int world_setup_debug(void **state);
int world_teardown(void **state);
void world_reopen(struct world *world);

/* tram_transport_detach(), and what it leaves as two values, the caller's; of a failure -1 and NULL. */
struct detached {
    int fd;
    tram_buffer *unread;
};
int detach(tram_transport *transport, struct detached *ret_detached);

/* A loop with another system-call table (core/system/sys.h); the old one is freed. */
struct sys;
void world_use_sys(struct world *world, const struct sys *sys);

/*
 * Runs the scenario on loop after loop, each with no memory from the n-th allocation on, or only for the n-th (`once`),
 * until one comes through untouched. Whatever failed, nothing is left behind once the loop is freed.
 */
void run_out_of_memory(struct world *world, bool once, void (*scenario)(struct world *world));

/*
 * The same with what is not the loop's (support/memory.h). What a process keeps for good is made by the first that
 * needs it: a scenario in which that fails comes before the others of its program.
 */
void run_out_of_other_memory(struct world *world, bool once, void (*scenario)(struct world *world));

/*
 * From now on, until world_has_timers(), no timer can be started for want of memory; for little else it is short.
 */
void world_lacks_timers(struct world *world);
void world_has_timers(struct world *world);

/*
 * From now on, until world_has_slots(), the loop has room for only so many descriptors and transports more, and no
 * memory for others.
 */
void world_lacks_slots(struct world *world, size_t left);
void world_has_slots(struct world *world);

#define HOUR_NS UINT64_C(3600000000000) /* a time that does not come */

/* The call is refused, and says which of its arguments or options it does not like. */
#define assert_wrong(call, name)                                                                                       \
    do {                                                                                                               \
        assert_int_equal(call, TRAM_EVALUE);                                                                           \
        assert_string_equal(tram_wrong_option(), name);                                                                \
    } while (0)

/* What a call may return there; and whether it is no error. */
bool ok_or_no_memory(int status);
bool had_memory(int status);

/* Adds a word to the trace. */
void trace(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Compares the trace with `expected` and empties it. */
#define assert_trace(world, expected)                                                                                  \
    do {                                                                                                               \
        assert_string_equal((world)->trace, expected);                                                                 \
        (world)->trace[0] = '\0';                                                                                      \
    } while (0)

/* Exactly `count` ticks that do not block. */
void run_ticks(struct world *world, int count);

/* Runs until *flag is true; fails the test after 20 seconds. */
void run_until(struct world *world, const bool *flag);

/* Runs until the trace contains `word`. */
void run_until_traced(struct world *world, const char *word);

/* Calls it on another thread and waits for that: what it returned. */
void *on_another_thread(void *(*function)(void *arg), void *arg);

/* Runs until the condition holds; fails the test after 20 seconds. */
void run_until_true(struct world *world, bool (*condition)(void *arg), void *arg);

/*
 * Runs ticks until the loop would sleep. A loop that is woken again and again by something that nobody wants to know
 * never gets there, which fails the test.
 */
void run_to_rest(struct world *world);

/* What the loop's system calls were, and what receiving is made to do. */
struct calls {
    unsigned receives;
    size_t largest_receive; /* asked for */
    size_t receive_limit;   /* a receive brings at most so much; 0: what it asks for */
    int receive_errno;      /* the next receive fails with it; 0: none */
};

/* A loop that counts; the old one is freed. The counters are zeroed. */
struct calls *world_count_calls(struct world *world);

/*
 * Set by a test that closes a descriptor behind the back of its owner: everywhere else a close of a descriptor that is
 * not open ends the program (support/close.c).
 */
extern bool may_close_twice;

/*
 * The second call of each kind that the library makes in a test fails with EINTR first (support/sys.c): where calls are
 * counted they are not interrupted. world_setup() begins anew.
 */
void calls_begin(void);
void calls_uninterrupted(void);

/* How many descriptors this process has open. */
int open_descriptors(void);

/* Under valgrind, which has no pidfd_open and keeps limits of descriptors in its own way. */
bool is_emulated(void);

/* There, with the reason: skips the test that calls it. */
void skip_where_emulated(const char *why);

/* … or the whole program: what main() returns. */
int skip_program(const char *why);

/* A loop callback that adds (const char *)arg to the trace: the loop must be the world's of `world_of(loop)`. */
int trace_callback(tram_loop *loop, void *arg);
struct world *world_of(tram_loop *loop);

/* ---- A protocol that writes down what happens ---- */

/*
 * Every callback adds a word to the trace, prefixed with `name` if that is not NULL: made, data:N, eof, lost:0,
 * lost:ECONNRESET, pause, resume, get_buffer, updated:N, datagram:N, error:ECONNREFUSED, released. Then `on` is called,
 * if set, with the same word's first part ("data"), and its return value is the callback's. Fields may be changed at
 * any time.
 */
struct recorder {
    tram_protocol base;
    struct world *world;
    const char *name;
    int (*on)(struct recorder *recorder, const char *event);
    void *arg;
    int eof_returns; /* what eof_received returns */
    size_t received; /* bytes in all */
    bool keep;       /* append to `bytes` what comes, as far as it fits */
    bool quiet_data; /* no word for data */
    char bytes[65536];
    size_t kept;
    char buffer[4096];  /* where a buffered recorder receives */
    size_t buffer_size; /* what get_buffer offers; set to sizeof buffer by recorder_new_buffered */
    bool made;
    bool lost;
    bool was_released;
    int lost_code;
    const void *lost_user;
    bool heap;           /* freed in released */
    ptrdiff_t size_hint; /* the last one that get_buffer was given */
    bool takes_hints;    /* else only -1 is */
    size_t datagrams;    /* how many came */
    bool has_peer;       /* the last one had a sender */
    tram_socket_address peer;
};

/* A plain or buffered recorder; owned by the world: freed when its `released` came and the world ends. */
struct recorder *recorder_new(struct world *world, const char *name);
struct recorder *recorder_new_buffered(struct world *world, const char *name);

/* Frees them, before the world ends: none is in use any more. */
void world_forget_recorders(struct world *world);

/* A tram_protocol_factory; arg is the world. Makes unnamed recorders; the last is world_last_recorder(). */
int recorder_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol);
struct recorder *world_last_recorder(struct world *world);

/* ---- Sockets ---- */

/* A connected loopback TCP pair, both ends non-blocking. */
void tcp_pair(int ret_fds[2]);

/* The same, as Unix stream sockets (small, predictable buffers). */
void unix_pair(int ret_fds[2]);

/* A listening loopback socket, and its port. */
int tcp_listener(int backlog, uint16_t *ret_port);

/* A blocking connect to a loopback port; -1 and errno if refused. */
int tcp_connect(uint16_t port);

/* A name of 127.0.0.1 to resolve: "localhost", or the number itself where a bare system knows no names. */
const char *loopback_name(void);

/*
 * A loopback port that is free and likely stays so: the kernel gives it to nobody who does not ask for it, and each
 * process of tests has some of its own to try.
 */
uint16_t free_port(void);

/*
 * A port that nobody else on this machine is given while *ret_fd is open, in IPv4 nor in IPv6, and at which nobody
 * listens: connecting to any loopback address of it is refused. A listener that sets SO_REUSEADDR may take it beside.
 * Whoever connects to a port that is neither held nor listened to may meet the test that runs next door.
 */
uint16_t hold_port(int *ret_fd);

/* Fails unless nobody listens at the port of 127.0.0.1; takes it for a moment, so that no stranger is asked. */
void assert_nobody_listens(uint16_t port);

/* Waits until nobody listens there. */
void await_nobody_listens(uint16_t port);

/* Makes `fd` blocking or not. */
void set_blocking(int fd, bool blocking);

/* Closes so that the peer sees a reset. */
void close_with_reset(int fd);

/* Makes the socket buffers of `fd` as small as the kernel allows. */
void shrink_buffers(int fd);

/* Writes or reads exactly `size` bytes on a descriptor in whatever mode, running the world's loop meanwhile if given.
 */
void send_exactly(struct world *world, int fd, const void *data, size_t size);
void receive_exactly(struct world *world, int fd, void *data, size_t size);

/* Runs the world's loop until `fd` reads EOF (true) or an error (false, errno set); discards bytes before. */
bool receive_eof(struct world *world, int fd);

/* Waits until poll() reports one of `events`, an error or a hang-up for `fd`; the loop does not run meanwhile. */
void await_events(int fd, short events);

/* A stream transport over `fd` with `recorder` as its protocol; connection_made has not run yet. */
tram_transport *transport_new(struct world *world, int fd, struct recorder *recorder);

/* The same for any protocol, with a future that is completed as a creator's, or NULL; it may fail. */
int transport_try_new(struct world *world, int fd, tram_protocol *protocol, tram_future *creator,
                      tram_transport **ret_transport);

/* A transport over one end of a fresh TCP pair, and the other end, which is the test's to close. */
struct wire {
    tram_transport *transport;
    struct recorder *recorder;
    int fd;
    int peer;
};
struct wire wire_new(struct world *world, struct recorder *recorder);

/* The same, with connection_made behind it and an empty trace. */
struct wire wire_new_made(struct world *world, struct recorder *recorder);

/* Fills the kernel's buffer, so that it takes nothing more before the peer reads, and then the transport's until more
 * than `queued` bytes wait in it. */
void fill(tram_transport *transport, size_t queued);

#endif
