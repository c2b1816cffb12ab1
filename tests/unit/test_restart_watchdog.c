/* What systemd is told at the edges: by a watchdog without memory, and of an end that came early. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "support/support.h"
#include "transports/restart/notify.h"
#include <tram/fault.h>

/* ---- In the place of systemd ---- */

static int listen_as_systemd(void) {
    char name[40];
    tram_socket_address address;
    const struct timeval patience = {.tv_sec = 20};
    snprintf(name, sizeof name, "@tram-notify-unit-%d", (int)getpid());
    setenv("NOTIFY_SOCKET", name, 1);
    size_t size = strlen(name);
    name[0] = '\0';
    assert_int_equal(tram_socket_address_unix(name, size, &address), 0);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address.address, address.size), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    return fd;
}

static void listen_no_more(int fd) {
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    close(fd);
}

static void assert_told(int fd, const char *expected) {
    char text[80] = "";
    if (recv(fd, text, sizeof text - 1, 0) < 0)
        fail_msg("not told in time: %s", expected);
    assert_string_equal(text, expected);
}

static void assert_told_no_more(int fd) {
    char byte;
    assert_int_equal(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
}

/* Keeps a worker busy until it is opened. */
struct gate {
    int in[2], out[2];
};

static int wait_at_gate(tram_loop *loop, void *arg) {
    const struct gate *gate = arg;
    char byte;
    (void)loop;
    assert_int_equal(write(gate->in[1], "", 1), 1);
    assert_int_equal(read(gate->out[0], &byte, 1), 1);
    return 0;
}

static void gate_begin(struct gate *gate, tram_loop *loop) {
    assert_int_equal(pipe2(gate->in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(gate->out, O_CLOEXEC), 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(loop, wait_at_gate, gate, NULL), 0);
}

/* Somebody waits at it. */
static void gate_await(const struct gate *gate) {
    char byte;
    assert_int_equal(read(gate->in[0], &byte, 1), 1);
}

static void gate_open(const struct gate *gate) {
    assert_int_equal(write(gate->out[1], "", 1), 1);
}

static void gate_end(const struct gate *gate) {
    close(gate->in[0]), close(gate->in[1]);
    close(gate->out[0]), close(gate->out[1]);
}

/* ---- The watchdog ---- */

static void nothing(tram_loop *loop, struct deadline *deadline) {
    (void)loop;
    (void)deadline;
}

static struct deadline first_deadlines[2];

/* A timer that is no call, so that there is room for more timers, but not for calls. */
static int start_timer(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **worker_state, void *arg) {
    (void)runtime;
    (void)worker_state;
    (void)arg;
    first_deadlines[worker] = (struct deadline){.expire = nothing};
    return tram__deadline_start_after(loop, &first_deadlines[worker], 3600000000000);
}

/* A worker that could not be asked owes no answer, and memory that is short for a moment ends no watchdog. */
static void test_no_memory_for_the_watchdog(void **state) {
    (void)state;
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    for (uint64_t n = 1, injected = 1; injected; n++) {
        tram_runtime *runtime;
        struct notifier notifier;
        const tram_runtime_options options = {.workers = 2, .loop = {.faults = faults}, .start = start_timer};
        assert_int_equal(tram_runtime_new(&options, &runtime), 0);
        struct gate gate;
        int fd = listen_as_systemd();
        setenv("WATCHDOG_USEC", "8000", 1);
        tram__notifier_open(&notifier, runtime);
        assert_int_equal(tram_runtime_start(runtime), 0);
        gate_begin(&gate, tram_runtime_loop(runtime, 0));
        gate_await(&gate);
        tram__notifier_ready(&notifier, false);
        tram_faults_reset(faults);
        assert_int_equal(tram_faults_fail(faults, TRAM_FAULT_ALLOCATE, n, 1, ENOMEM), 0);
        gate_open(&gate);
        assert_told(fd, "READY=1");
        for (int i = 0; i < 3; i++)
            assert_told(fd, "WATCHDOG=1");
        injected = tram_faults_injected(faults);
        tram_faults_reset(faults);
        tram_runtime_free(runtime);
        tram__notifier_close(&notifier);
        listen_no_more(fd);
        gate_end(&gate);
    }
    tram_faults_free(faults);
}

static int call_nothing(tram_loop *loop, void *arg) {
    (void)loop;
    (void)arg;
    return 0;
}

/* Until there is no room for one more, as long as the faults last. */
static int take_all_calls(tram_loop *loop, void *arg) {
    assert_int_equal(tram_faults_fail(arg, TRAM_FAULT_ALLOCATE, 1, TRAM_FAULT_ALWAYS, ENOMEM), 0);
    while (tram_loop_call_later(loop, 3600000000000, call_nothing, NULL, NULL, NULL) == 0)
        continue;
    return 0;
}

static void test_a_watchdog_needs_no_room_for_calls(void **state) {
    (void)state;
    tram_faults *faults;
    assert_int_equal(tram_faults_new(NULL, &faults), 0);
    tram_runtime *runtime;
    struct notifier notifier;
    const tram_runtime_options options = {.workers = 1, .loop = {.faults = faults}, .start = start_timer};
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    int fd = listen_as_systemd();
    setenv("WATCHDOG_USEC", "8000", 1);
    tram__notifier_open(&notifier, runtime);
    tram_loop *loop = tram_runtime_loop(runtime, 0);
    assert_int_equal(tram_loop_call_soon_threadsafe(loop, take_all_calls, faults, NULL), 0);
    tram__notifier_ready(&notifier, false); /* in the same turn */
    assert_int_equal(tram_runtime_start(runtime), 0);
    assert_told(fd, "READY=1");
    assert_told(fd, "WATCHDOG=1");
    tram_faults_reset(faults);
    for (int i = 0; i < 3; i++)
        assert_told(fd, "WATCHDOG=1");
    tram_runtime_free(runtime);
    tram__notifier_close(&notifier);
    listen_no_more(fd);
    tram_faults_free(faults);
}

/* ---- An end that came early ---- */

static int write_byte(tram_loop *loop, void *arg) {
    (void)loop;
    assert_int_equal(write(*(const int *)arg, "", 1), 1);
    return 0;
}

/* What a worker was asked for by now, it has dealt with. */
static void await_turns(tram_loop *loop) {
    int pipes[2];
    char byte;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tram_loop_call_soon_threadsafe(loop, write_byte, &pipes[1], NULL), 0);
        assert_int_equal(read(pipes[0], &byte, 1), 1);
    }
    close(pipes[0]), close(pipes[1]);
}

static int get_ready(tram_loop *loop, void *arg) {
    (void)loop;
    tram__notifier_ready(arg, false);
    return 0;
}

/* … when its worker has heard of the end. */
static int stop_and_get_ready(tram_loop *loop, void *arg) {
    const struct notifier *notifier = arg;
    assert_int_equal(tram_runtime_stop(notifier->runtime), 0);
    return tram_loop_call_soon(loop, get_ready, arg, NULL, NULL);
}

/* Before the workers begin, while the first one is busy, when it knows, and when all is over: once each time. */
static void test_an_end_that_came_early_is_told(void **state) {
    (void)state;
    enum { BEFORE, BUSY, KNOWN, OVER, LATER, WAYS };
    for (int way = 0; way < WAYS; way++) {
        tram_runtime *runtime;
        struct notifier notifier;
        struct gate gate;
        const tram_runtime_options options = {.workers = 2};
        assert_int_equal(tram_runtime_new(&options, &runtime), 0);
        int fd = listen_as_systemd();
        tram__notifier_open(&notifier, runtime);
        tram_loop *loop = tram_runtime_loop(runtime, 0);
        if (way == BUSY)
            gate_begin(&gate, loop); /* in the same turn as the call to begin */
        else if (way != BEFORE)
            assert_int_equal(tram_runtime_start(runtime), 0);
        if (way == OVER) {
            assert_int_equal(tram_runtime_stop(runtime), 0);
            assert_int_equal(tram_runtime_join(runtime), 0);
        }
        if (way == KNOWN)
            assert_int_equal(tram_loop_call_soon_threadsafe(loop, stop_and_get_ready, &notifier, NULL), 0);
        else
            tram__notifier_ready(&notifier, false);
        assert_told(fd, "READY=1");
        if (way == BUSY) {
            assert_int_equal(tram_runtime_start(runtime), 0);
            gate_await(&gate);
        }
        if (way == LATER)
            await_turns(loop);
        if (way == BEFORE || way == BUSY || way == LATER)
            assert_int_equal(tram_runtime_stop(runtime), 0);
        if (way == BUSY) {
            gate_open(&gate);
            assert_int_equal(tram_runtime_join(runtime), 0);
            gate_end(&gate);
        }
        tram_runtime_free(runtime);
        assert_told(fd, "STOPPING=1");
        assert_told_no_more(fd);
        tram__notifier_close(&notifier);
        listen_no_more(fd);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_memory_for_the_watchdog),
        cmocka_unit_test(test_a_watchdog_needs_no_room_for_calls),
        cmocka_unit_test(test_an_end_that_came_early_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
