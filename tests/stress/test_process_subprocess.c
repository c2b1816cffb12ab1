/*
 * A thousand subprocesses at once over two workers, each writing 64 KiB to its output and as much to its error (Z-15,
 * Z-17): every byte arrives, every exit status is right, on the loop that started the child; no zombie, no descriptor.
 */
#include "support/process.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS      2
#define PER_WORKER   500
#define OUTPUT       65536
#define SEED         16
#define DESCRIPTORS  4 /* of one child: three pipes and a pidfd */
#define EVERY_NTH_IS 7 /* … ended by a signal */

struct crowd;

struct member {
    tram_protocol base;
    struct crowd *crowd;
    int number;
    char seed[3][SEED + 16]; /* SEED characters; room for what the compiler thinks possible */
    size_t received[3];
    unsigned lost_pipes;
    int exits;
    int returncode;
};

/* The children of one worker; touched on its thread only, while it runs. */
struct crowd {
    tram_loop *loop;
    tram_runtime *runtime;
    pthread_t thread;
    unsigned worker;
    int at_once;
    int started;
    int alive;
    int most_alive;
    int done;
    int wrong;
    struct member members[PER_WORKER];
};

static struct crowd crowds[WORKERS];
static atomic_int crowds_done;

static struct member *of(tram_protocol *protocol) {
    return (struct member *)protocol;
}

/* Not an assertion: this is not the thread of the test. */
static void expect(struct member *member, bool holds, const char *what) {
    if (holds)
        return;
    if (member->crowd->wrong++ < 10)
        print_error("child %d of worker %u: %s\n", member->number, member->crowd->worker, what);
}

static int on_data(tram_protocol *protocol, int fd, const void *data, size_t size) {
    struct member *member = of(protocol);
    const char *bytes = data;
    bool right = true;
    for (size_t i = 0; i < size; i++)
        right &= bytes[i] == member->seed[fd][(member->received[fd] + i) % SEED];
    expect(member, right, "wrong bytes");
    member->received[fd] += size;
    return 0;
}

static int on_pipe_lost(tram_protocol *protocol, int fd, const tram_error *error) {
    struct member *member = of(protocol);
    (void)fd;
    expect(member, !error, "a pipe was lost with an error");
    member->lost_pipes++;
    return 0;
}

static int expected_returncode(const struct member *member) {
    return member->number % EVERY_NTH_IS == 0 ? -SIGTERM : member->number % 256;
}

static int on_exited(tram_protocol *protocol) {
    struct member *member = of(protocol);
    expect(member, pthread_equal(pthread_self(), member->crowd->thread), "the exit came on another thread");
    tram_transport_get_returncode(protocol->transport, &member->returncode);
    member->exits++;
    return 0;
}

static int on_lost(tram_protocol *protocol, const tram_error *error) {
    struct member *member = of(protocol);
    expect(member, !error && member->exits == 1 && member->lost_pipes == 3, "lost before its time");
    expect(member, member->received[1] == OUTPUT && member->received[2] == OUTPUT, "bytes are missing");
    expect(member, member->returncode == expected_returncode(member), "the wrong exit status");
    return 0;
}

static void start_more(struct crowd *crowd);

static void on_released(tram_protocol *protocol) {
    struct crowd *crowd = of(protocol)->crowd;
    crowd->alive--;
    crowd->done++;
    start_more(crowd);
    if (crowd->done == PER_WORKER && atomic_fetch_add(&crowds_done, 1) + 1 == WORKERS)
        tram_runtime_stop(crowd->runtime);
}

static const tram_protocol_ops ops = {
    .pipe_data_received = on_data,
    .pipe_connection_lost = on_pipe_lost,
    .process_exited = on_exited,
    .connection_lost = on_lost,
    .released = on_released,
};

static int make_member(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = arg;
    return 0;
}

/* The shell doubles the seed until it has 64 KiB; no other process is needed. */
static void start_member(struct member *member) {
    static const char script[] = "fill() { text=$1; while [ ${#text} -lt 65536 ]; do text=$text$text; done; }\n"
                                 "fill $0; printf %s $text; fill $1; printf %s $text >&2\n"
                                 "[ $2 -ge 0 ] && exit $2; kill -TERM $$";
    char code[16];
    snprintf(code, sizeof code, "%d", expected_returncode(member));
    const char *const argv[] = {"/bin/sh", "-c", script, member->seed[1], member->seed[2], code, NULL};
    int status = tram_loop_subprocess_exec(member->crowd->loop, make_member, member, argv, NULL, NULL);
    expect(member, status == 0, "not started");
}

static void start_more(struct crowd *crowd) {
    while (crowd->started < PER_WORKER && crowd->alive < crowd->at_once) {
        struct member *member = &crowd->members[crowd->started];
        *member = (struct member){.base.ops = &ops, .crowd = crowd, .number = crowd->started++};
        for (int fd = 1; fd < 3; fd++)
            snprintf(member->seed[fd], sizeof member->seed[fd], "%u.%d.%010d:%c", crowd->worker, fd, member->number,
                     "oe"[fd - 1]);
        if (++crowd->alive > crowd->most_alive)
            crowd->most_alive = crowd->alive;
        start_member(member);
    }
}

static int begin(tram_loop *loop, void *arg) {
    (void)loop;
    start_more(arg);
    return 0;
}

static int worker_start(tram_runtime *runtime, unsigned worker, tram_loop *loop, void **worker_state, void *arg) {
    struct crowd *crowd = &crowds[worker];
    *crowd = (struct crowd){
        .loop = loop, .runtime = runtime, .thread = pthread_self(), .worker = worker, .at_once = *(const int *)arg};
    *worker_state = crowd;
    return tram_loop_call_soon(loop, begin, crowd, NULL, NULL);
}

/* How many processes the container lets us have, if it is one that says so. */
static rlim_t container_limit(void) {
    unsigned long limit = 0, current = 0;
    FILE *file = fopen("/sys/fs/cgroup/pids.max", "r");
    bool limited = file && fscanf(file, "%lu", &limit) == 1; /* else it says "max" */
    if (file)
        fclose(file);
    file = limited ? fopen("/sys/fs/cgroup/pids.current", "r") : NULL;
    if (file && fscanf(file, "%lu", &current) != 1)
        current = limit;
    if (file)
        fclose(file);
    if (!limited)
        return RLIM_INFINITY;
    return limit > current + 20 ? limit - current - 20 : 2 * WORKERS;
}

/* As many as are to be had at once on each worker: all, unless a limit is in the way. */
static int allowed_at_once(void) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    rlim_t each = (limit.rlim_cur - 100) / DESCRIPTORS / WORKERS;
    if (getrlimit(RLIMIT_NPROC, &limit) == 0 && limit.rlim_cur / 2 / WORKERS < each)
        each = limit.rlim_cur / 2 / WORKERS;
    if (container_limit() / 2 / WORKERS < each)
        each = container_limit() / 2 / WORKERS;
    return each < PER_WORKER ? (int)each : PER_WORKER;
}

static void test_Z_15_Z_17_a_thousand_children_over_two_workers(void **state) {
    (void)state;
    int at_once = allowed_at_once();
    int descriptors = open_descriptors();
    tram_runtime_options options = {.workers = WORKERS, .start = worker_start, .arg = &at_once};
    tram_runtime *runtime;
    atomic_store(&crowds_done, 0);
    assert_int_equal(tram_runtime_new(&options, &runtime), 0);
    assert_int_equal(tram_runtime_run(runtime), 0);
    tram_runtime_free(runtime);
    for (int i = 0; i < WORKERS; i++) {
        assert_int_equal(crowds[i].wrong, 0);
        assert_int_equal(crowds[i].done, PER_WORKER);
        assert_int_equal(crowds[i].most_alive, at_once);
    }
    assert_true(no_children());
    assert_int_equal(open_descriptors(), descriptors);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_Z_15_Z_17_a_thousand_children_over_two_workers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
