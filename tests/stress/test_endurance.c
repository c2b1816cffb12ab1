/*
 * What time does to a server: connections by the hundred thousand leave nothing behind, and one that has no descriptors
 * left serves whom it can, says so once, sleeps, and recovers.
 */
/* tram-test: mostly waits */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/compiler.h"
#include "support/support.h"
#include "support/witness.h"

static bool full_run(void) {
    return getenv("TRAM_TEST_FULL") != NULL;
}

/* ---- Cycles ---- */

enum { AT_A_TIME = 32 };

struct cycles {
    struct world *world;
    struct witness_tally servers;
    struct witness_tally clients[2]; /* those that end with a reset, and those that do not */
    char port[8];
    unsigned started;
    unsigned failed;
    int last_error;
};

static int connected(tram_future *future, void *arg) {
    struct cycles *cycles = arg;
    int status = tram_future_result(future, NULL);
    if (status == 0)
        return 0;
    cycles->failed++;
    cycles->last_error = status;
    return 0;
}

static unsigned ended(const struct cycles *cycles) {
    return cycles->clients[0].released + cycles->clients[1].released + cycles->failed;
}

/* One in eight ends cleanly and leaves a TIME_WAIT: over many addresses, or the ports would run out. */
static void start_one(struct cycles *cycles) {
    char host[32];
    tram_future *future;
    unsigned number = cycles->started++;
    snprintf(host, sizeof host, "127.2.%u.%u", number / 200 % 200, number % 200 + 1);
    assert_int_equal(tram_loop_create_connection(cycles->world->loop, witness_client, &cycles->clients[number % 8 == 0],
                                                 host, cycles->port, NULL, &future),
                     0);
    assert_int_equal(tram_future_add_done_callback(future, connected, cycles), 0);
    tram_future_release(future);
}

static bool served_all(void *arg) {
    struct cycles *cycles = arg;
    return ended(cycles) == cycles->started &&
           cycles->servers.protocols == cycles->clients[0].made + cycles->clients[1].made &&
           cycles->servers.released == cycles->servers.protocols;
}

static void run_cycles(struct cycles *cycles, unsigned count) {
    unsigned until = cycles->started + count;
    while (cycles->started < until) {
        while (cycles->started < until && cycles->started - ended(cycles) < AT_A_TIME)
            start_one(cycles);
        run_ticks(cycles->world, 1);
    }
    run_until_true(cycles->world, served_all, cycles);
    run_to_rest(cycles->world);
}

static size_t resident_pages(void) {
    size_t size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%zu %zu", &size, &resident), 2);
    fclose(file);
    return resident;
}

static void finish(struct world *world, tram_future *future, void **ret_value) {
    while (!tram_future_done(future))
        run_ticks(world, 1);
    assert_int_equal(tram_future_result(future, ret_value), 0);
    tram_future_release(future);
}

static void test_V_15_cycles_leave_descriptors_and_memory_where_they_were(void **state) {
    struct world *world = *state;
    struct cycles cycles = {.world = world};
    unsigned count = full_run() ? 1000000 : 20000;
    tram_server_options options = {.backlog = 4 * AT_A_TIME};
    tram_future *future;
    void *value;
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    cycles.clients[0] = (struct witness_tally){.size = 100, .end = WITNESS_RESETS};
    cycles.clients[1] = (struct witness_tally){.size = 100, .end = WITNESS_CLOSES};
    assert_int_equal(
        tram_loop_create_server(world->loop, witness_server, &cycles.servers, "0.0.0.0", "0", &options, &future), 0);
    finish(world, future, &value);
    assert_int_equal(tram_server_sockname(value, 0, &address), 0);
    tram_socket_address_text(&address, text, sizeof text);
    snprintf(cycles.port, sizeof cycles.port, "%s", strrchr(text, ':') + 1);

    run_cycles(&cycles, 2000); /* pools and tables have their size then */
    int descriptors = open_descriptors();
    size_t blocks = world->live_blocks, bytes = world->live_bytes, pages = resident_pages();
    run_cycles(&cycles, count);
    print_message("%u cycles, %u connects failed; blocks %zu -> %zu, bytes %zu -> %zu, resident pages %zu -> %zu\n",
                  count, cycles.failed, blocks, world->live_blocks, bytes, world->live_bytes, pages, resident_pages());
    assert_int_equal(cycles.last_error, 0);
    assert_int_equal(cycles.clients[0].echoed + cycles.clients[1].echoed, cycles.started);
    assert_int_equal(open_descriptors(), descriptors);
    assert_int_equal(world->live_blocks, blocks);
    assert_int_equal(world->live_bytes, bytes);
#ifndef TRAM_ASAN
    assert_true(resident_pages() < pages + 256);
#endif
    assert_true(witness_paired(&cycles.servers) && witness_paired(&cycles.clients[0]) &&
                witness_paired(&cycles.clients[1]));
    assert_int_equal(world->exceptions, 0);
    assert_int_equal(tram_server_close(value), 0);
    tram_server_release(value);
}

/* ---- No descriptors left ---- */

enum { CLIENTS = 500, DESCRIPTORS = 64 };

/* What the starved server tells the test. */
struct starved {
    atomic_uint other_reports;
    atomic_ullong pauses;
    atomic_size_t left_bytes;
    struct witness_tally tally;
    int listener;
    int commands; /* 'r': raise the limit, 'q': end */
    int events;   /* a struct report each */
};

/* When it came, and how much CPU the server had used by then: by its own clocks, whenever the test gets to read it. */
struct report {
    uint64_t wall_ns;
    uint64_t cpu_ns;
};

static uint64_t time_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int on_report(tram_loop *loop, const tram_exception *exception, void *arg) {
    struct starved *starved = arg;
    struct report report = {.wall_ns = time_of(CLOCK_MONOTONIC), .cpu_ns = time_of(CLOCK_THREAD_CPUTIME_ID)};
    (void)loop;
    if (!exception->error || exception->error->code != -EMFILE)
        atomic_fetch_add(&starved->other_reports, 1);
    return write(starved->events, &report, sizeof report) == sizeof report ? 0 : TRAM_EUSER;
}

static void limit_descriptors(rlim_t count) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = count < limit.rlim_max ? count : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        _exit(10);
}

static int on_command(tram_loop *loop, void *arg) {
    struct starved *starved = arg;
    char command;
    if (read(starved->commands, &command, 1) != 1)
        return TRAM_EUSER;
    if (command == 'r')
        limit_descriptors(4096);
    else
        tram_loop_stop(loop);
    return 0;
}

static void serve_starved(struct starved *starved) {
    tram_faults *faults;
    tram_loop *loop;
    tram_stats stats;
    size_t left;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves no process */
    may_close_twice = true;           /* below */
    /* The limit shall mean the same whatever the test inherited. */
    for (int fd = 3; fd < 1024; fd++)
        if (fd != starved->listener && fd != starved->commands && fd != starved->events)
            close(fd);
    limit_descriptors(DESCRIPTORS);
    if (tram_faults_new(NULL, &faults)) /* it fails nothing: it counts memory */
        _exit(11);
    tram_loop_options options = {.faults = faults};
    tram_server_options server_options = {.sock = &starved->listener, .backlog = CLIENTS + 10};
    if (tram_loop_new(&options, &loop) || tram_loop_set_exception_handler(loop, on_report, starved) ||
        tram_loop_add_reader(loop, starved->commands, on_command, starved) ||
        tram_loop_create_server(loop, witness_server, &starved->tally, NULL, NULL, &server_options, NULL))
        _exit(12);
    tram_loop_run_forever(loop);
    tram_loop_stats(loop, &stats);
    starved->pauses = stats.accept_pauses;
    if (tram_loop_free(loop))
        _exit(13);
    tram_faults_memory(faults, NULL, &left);
    starved->left_bytes = left;
    tram_faults_free(faults);
    _exit(0);
}

static unsigned reports; /* how many were read */

static struct report await_report(int fd) {
    struct report report;
    await_events(fd, POLLIN);
    assert_int_equal(read(fd, &report, sizeof report), sizeof report);
    reports++;
    return report;
}

/* Reads those that have come already. */
static void drain_reports(int fd) {
    for (struct pollfd poll_fd = {.fd = fd, .events = POLLIN}; poll(&poll_fd, 1, 0) == 1;)
        await_report(fd);
}

/* As many as the kernel lets wait in a queue. */
static unsigned client_count(void) {
    unsigned longest = 0;
    FILE *file = fopen("/proc/sys/net/core/somaxconn", "r");
    bool known = file && fscanf(file, "%u", &longest) == 1;
    if (file)
        fclose(file);
    return known && longest < CLIENTS ? longest : CLIENTS;
}

/* How many clients have their echo at this moment; closes them. */
static unsigned close_served(int *fds, unsigned clients) {
    struct pollfd poll_fds[CLIENTS];
    for (unsigned i = 0; i < clients; i++)
        poll_fds[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
    int served = poll(poll_fds, clients, 0);
    assert_true(served >= 0);
    for (unsigned i = 0; i < clients; i++)
        if (poll_fds[i].revents) {
            close_with_reset(fds[i]);
            fds[i] = -1;
        }
    return (unsigned)served;
}

static void test_V_11_a_server_without_descriptors_sleeps_and_recovers(void **state) {
    (void)state;
    struct starved *starved = mmap(NULL, sizeof *starved, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const unsigned clients = client_count();
    int commands[2], events[2], fds[CLIENTS], status;
    uint16_t port;
    if (clients <= 2 * DESCRIPTORS - 10)
        skip(); /* some are still to wait when it is served twice */
    assert_true(starved != MAP_FAILED);
    *starved = (struct starved){.listener = tcp_listener(CLIENTS + 10, &port)};
    assert_int_equal(pipe(commands) | pipe(events), 0);
    starved->commands = commands[0];
    starved->events = events[1];
    pid_t child = fork();
    if (child == 0)
        serve_starved(starved);
    close(starved->listener);
    for (unsigned i = 0; i < clients; i++) {
        fds[i] = tcp_connect(port);
        assert_true(fds[i] >= 0);
        assert_int_equal(send(fds[i], "x", 1, MSG_NOSIGNAL), 1);
    }

    /* Starved: one incident a second, told at the first, the second and the fourth, and no work in between. */
    struct report first = await_report(events[0]), last = first;
    for (int i = 0; i < 2; i++) {
        struct report next = await_report(events[0]);
        assert_true(next.wall_ns - last.wall_ns > 990000000ull << i); /* at each power of two: twice the pauses */
        last = next;
    }
    uint64_t cpu = last.cpu_ns - first.cpu_ns, wall = last.wall_ns - first.wall_ns;
    unsigned served = close_served(fds, clients);
    print_message("%u of %u served with %u descriptors; %.2f%% CPU during %.1f s without\n", served, clients,
                  DESCRIPTORS, 100.0 * (double)cpu / (double)wall, (double)wall / 1e9);
    assert_true(served >= DESCRIPTORS / 2 && served < DESCRIPTORS);
    assert_true(cpu < wall / 20);

    /* Descriptors that come free go to those who wait: the first report may come while they are being accepted. */
    drain_reports(events[0]);
    await_report(events[0]);
    unsigned more = close_served(fds, clients);
    print_message("%u more served in their place\n", more);
    assert_true(more >= DESCRIPTORS / 2 && more < DESCRIPTORS);
    assert_int_equal(write(commands[1], "r", 1), 1);
    for (unsigned i = 0; i < clients; i++)
        if (fds[i] >= 0) {
            await_events(fds[i], POLLIN);
            close_with_reset(fds[i]);
        }
    assert_int_equal(write(commands[1], "q", 1), 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(starved->other_reports, 0);
    drain_reports(events[0]);
    /* Told at each power of two, and at no other. */
    assert_true(reports > 0 && starved->pauses >= 1u << (reports - 1) && starved->pauses < 1u << reports);
    assert_int_equal(starved->left_bytes, 0);
    assert_int_equal(starved->tally.protocols, clients);
    assert_true(witness_paired(&starved->tally));
    for (int i = 0; i < 2; i++) {
        close(commands[i]);
        close(events[i]);
    }
    munmap(starved, sizeof *starved);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_V_15_cycles_leave_descriptors_and_memory_where_they_were),
        TEST(test_V_11_a_server_without_descriptors_sleeps_and_recovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
