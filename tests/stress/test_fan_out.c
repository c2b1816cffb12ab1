/*
 * One buffer to 10,000 subscribers on two workers: its bytes are copied by nobody but the kernel, whether it takes them
 * at once or they wait. This program has a memcpy and a memmove of its own, which count what they copy of the payload.
 *
 * The subscribers are another process, since one may not have so many files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/support.h"

#define SUBSCRIBERS 10000
#define MESSAGES    8
#define SIZE        1024

/* ---- What is copied ---- */

static unsigned char payload[MESSAGES][SIZE];
static atomic_size_t copied; /* bytes of it */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif

#ifndef SANITIZED
#define SANITIZED false

static void count(const void *from, size_t size) {
    uintptr_t at = (uintptr_t)from, begin = (uintptr_t)payload;
    if (at + size > begin && at < begin + sizeof payload)
        copied += size;
}

/* Byte by byte, since the compiler would make a call of memcpy of anything better. */
void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    count(from, size);
    volatile unsigned char *target = to;
    const volatile unsigned char *source = from;
    while (size--)
        *target++ = *source++;
    return to;
}

void *memmove(void *to, const void *from, size_t size) {
    if ((uintptr_t)to - (uintptr_t)from >= size)
        return memcpy(to, from, size);
    count(from, size);
    volatile unsigned char *target = to;
    const volatile unsigned char *source = from;
    while (size--)
        target[size] = source[size];
    return to;
}
#endif

/* ---- Publishing ---- */

struct subscriber {
    tram_protocol base;
    struct subscriber *next;
};

/* A worker's. */
struct room {
    struct subscriber *first;
    size_t count;
};

static struct room rooms[2];
static atomic_size_t connected, released;
static atomic_size_t waiting; /* of each message, the bytes in the queue that it came to */

static int open_room(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **state, void *arg) {
    (void)runtime, (void)loop, (void)arg;
    *state = &rooms[worker];
    return 0;
}

/* Little fits into its socket, so that most messages wait. */
static int join(tram_protocol *protocol, tram_transport *transport) {
    struct subscriber *self = (struct subscriber *)protocol;
    struct room *room = tram_loop_state(tram_transport_get_loop(transport));
    const tram_socket *socket = tram_transport_get_extra_info(transport, "socket", NULL);
    int size = 1;
    setsockopt(socket->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    self->next = room->first;
    room->first = self;
    room->count++;
    connected++;
    return 0;
}

static void subscriber_free(tram_protocol *protocol) {
    free(protocol);
}

static int subscriber_new(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.connection_made = join, .released = subscriber_free};
    struct subscriber *self = calloc(1, sizeof *self);
    (void)loop, (void)arg;
    if (!self)
        return -ENOMEM;
    self->base.ops = &ops;
    *ret_protocol = &self->base;
    return 0;
}

static int publish(tram_loop *loop, void *arg, void **ret_value) {
    (void)ret_value;
    const struct room *room = tram_loop_state(loop);
    int status = 0;
    for (struct subscriber *each = room->first; each && !status; each = each->next) {
        status = tram_transport_write_buffer(each->base.transport, arg);
        waiting += tram_transport_get_write_buffer_size(each->base.transport);
    }
    return status;
}

static void let_go(void *buffer) {
    tram_buffer_release(buffer);
}

static void payload_released(const void *data, size_t size, void *arg) {
    (void)data, (void)size, (void)arg;
    released++;
}

static void publish_all(tram_runtime *runtime, tram_loop *loop) {
    for (size_t i = 0; i < MESSAGES; i++) {
        tram_buffer *buffer = tram_buffer_wrap(payload[i], SIZE, payload_released, NULL);
        tram_future *done;
        void *results;
        assert_non_null(buffer);
        assert_int_equal(tram_runtime_each(runtime, loop, publish, buffer, let_go, &done), 0);
        assert_int_equal(tram_loop_run_until_complete(loop, done), 0);
        assert_int_equal(tram_future_result(done, &results), 0);
        for (unsigned worker = 0; worker < 2; worker++)
            assert_int_equal(((const tram_worker_result *)results)[worker].status, 0);
        tram_future_release(done);
    }
}

/* ---- Subscribers ---- */

/* Connects all, waits for a byte, and reads; the exit status of the process. */
static int subscribe(const tram_socket_address *server, int go) {
    static int fds[SUBSCRIBERS];
    static unsigned char got[sizeof payload];
    for (size_t i = 0; i < SUBSCRIBERS; i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
        if (fds[i] < 0 || connect(fds[i], (const struct sockaddr *)&server->address, server->size) < 0)
            return 1;
    }
    if (read(go, got, 1) != 1)
        return 2;
    for (size_t i = 0; i < SUBSCRIBERS; i++)
        if (recv(fds[i], got, sizeof got, MSG_WAITALL) != sizeof got || memcmp(got, payload, sizeof got) != 0)
            return 3;
    return 0;
}

static void test_a_buffer_for_all_is_copied_for_none(void **state) {
    (void)state;
    char name[64];
    int size = snprintf(name + 1, sizeof name - 1, "tram-fan-out-%d", (int)getpid()) + 1, go[2], status;
    name[0] = '\0';
    tram_socket_address address;
    assert_int_equal(tram_socket_address_unix(name, (size_t)size, &address), 0);
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i / SIZE][i % SIZE] = (unsigned char)(i * 31 + i / SIZE);
    const tram_runtime_options options = {.workers = 2, .start = open_room};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_loop *loop;
    assert_int_equal(tram_loop_new(NULL, &loop), 0);
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(
        tram_runtime_create_unix_server(runtime, subscriber_new, NULL, name, (size_t)size, NULL, &server, NULL), 0);
    assert_int_equal(pipe(go), 0);
    pid_t others = fork();
    assert_true(others >= 0);
    if (others == 0)
        _exit(subscribe(&address, go[0]));
    assert_int_equal(tram_runtime_start(runtime), 0);
    while (connected < SUBSCRIBERS && waitpid(others, &status, WNOHANG) == 0)
        poll(NULL, 0, 1);
    assert_int_equal(connected, SUBSCRIBERS);
    copied = 0;
    publish_all(runtime, loop);
    assert_true(waiting > SUBSCRIBERS * SIZE);
    assert_int_equal(write(go[1], "", 1), 1);
    assert_int_equal(waitpid(others, &status, 0), others);
    assert_int_equal(status, 0);
    assert_int_equal(tram_runtime_stop(runtime), 0);
    assert_int_equal(tram_runtime_join(runtime), 0);
    print_message("%zu and %zu subscribers, %zu bytes copied\n", rooms[0].count, rooms[1].count, (size_t)copied);
    assert_int_equal(copied, 0);
    assert_int_equal(released, MESSAGES);
    /* And it would have been noticed. */
    static unsigned char elsewhere[SIZE];
    void *(*volatile copy)(void *, const void *, size_t) = memcpy;
    copy(elsewhere, payload[1], SIZE);
    assert_int_equal(copied, SIZE);
    tram_runtime_free(runtime);
    tram_loop_free(loop);
    close(go[0]);
    close(go[1]);
}

int main(void) {
    if (SANITIZED)
        return skip_program("a sanitizer has the memcpy");
    int limit = tram_raise_file_limit();
    if (limit < SUBSCRIBERS + 100)
        return skip_program("too few files may be open");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_buffer_for_all_is_copied_for_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
