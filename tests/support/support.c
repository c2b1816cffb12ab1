#include "support.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/backend/backend.h"
#include "core/loop/loop.h"
#include "support/codes.h"
#include "support/locks.h"
#include "support/memory.h"
#include "transports/base/state.h"
#include "transports/stream/stream.h"

#define PATIENCE_NS 20000000000ull

/* ---- A watched loop ---- */

/* Any thread: executors allocate too. */
static bool memory_is_out(struct world *world) {
    size_t left = __atomic_load_n(&world->fail_after, __ATOMIC_RELAXED);
    while (left != SIZE_MAX) {
        size_t next = left ? left - 1 : world->fail_once ? SIZE_MAX : 0;
        if (!__atomic_compare_exchange_n(&world->fail_after, &left, next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            continue;
        if (left == 0) {
            __atomic_add_fetch(&world->failures, 1, __ATOMIC_RELAXED);
            calls_lack_memory();
        }
        return left == 0;
    }
    return false;
}

/* Behind each block stand some bytes that are nobody's. Sanitizers look at more. */
#if defined(TRAM_ASAN) || defined(TRAM_TSAN)
#define MARGIN 0
#else
#define MARGIN 16
#endif

/* They show also where the size of a block that is let go of is not the one that was asked for. */
static void check_margin(const void *memory, size_t size) {
    static const char untouched[16] = "no man's bytes.";
    if (MARGIN == 0 || memcmp((const char *)memory + size, untouched, sizeof untouched) == 0)
        return;
    fprintf(stderr, "behind a block of %zu bytes something was written, or it is no block of this size\n", size);
    abort();
}

static void *counted_allocate(void *context, size_t size) {
    struct world *world = context;
    if (memory_is_out(world) || size > SIZE_MAX / 4) /* of which sanitizers would complain */
        return NULL;
    if (world->fail_size && size >= world->fail_size) {
        calls_lack_memory();
        return NULL;
    }
    void *memory = memory_of_world(size + MARGIN);
    if (memory) {
        memcpy((char *)memory + size, "no man's bytes.", MARGIN);
        __atomic_add_fetch(&world->live_blocks, 1, __ATOMIC_RELAXED);
        __atomic_add_fetch(&world->allocations, 1, __ATOMIC_RELAXED);
        size_t live = __atomic_add_fetch(&world->live_bytes, size, __ATOMIC_RELAXED);
        if (live > __atomic_load_n(&world->peak_bytes, __ATOMIC_RELAXED))
            __atomic_store_n(&world->peak_bytes, live, __ATOMIC_RELAXED);
    }
    return memory;
}

static void counted_release(void *context, void *memory, size_t size) {
    struct world *world = context;
    __atomic_sub_fetch(&world->live_blocks, 1, __ATOMIC_RELAXED);
    __atomic_sub_fetch(&world->live_bytes, size, __ATOMIC_RELAXED);
    check_margin(memory, size);
    memory_spoil(memory, size);
    free(memory);
}

static void append(char *text, size_t size, const char *more, const char *separator) {
    size_t length = strlen(text);
    snprintf(text + length, size - length, "%s%s", length ? separator : "", more);
}

static void collect_log(void *arg, tram_log_level level, const char *line) {
    struct world *world = arg;
    if (level == TRAM_LOG_WARNING)
        world->warnings++;
    else if (level == TRAM_LOG_ERROR)
        world->errors++;
    else
        world->debugs++;
    append(world->log, sizeof world->log, line, "\n");
}

static int collect_exception(tram_loop *loop, const tram_exception *exception, void *arg) {
    struct world *world = arg;
    (void)loop;
    checked_error(exception->error, exception->message);
    assert_true(exception->fd >= -1);
    world->exceptions++;
    world->exception_code = exception->error ? exception->error->code : 0;
    world->exception_user = exception->error ? exception->error->user : NULL;
    world->exception_transport = exception->transport;
    world->exception_protocol = exception->protocol;
    world->exception_fd = exception->fd;
    snprintf(world->exception, sizeof world->exception, "%s", exception->message);
    if (world->trace_reports)
        trace(world, "reported:%s", tram_error_name(world->exception_code));
    return 0;
}

int open_descriptors(void) {
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

bool is_emulated(void) {
    return getenv("TRAM_TEST_EMULATED");
}

void skip_where_emulated(const char *why) {
    if (!is_emulated())
        return;
    print_message("skipped: %s\n", why);
    skip();
}

int skip_program(const char *why) {
    print_message("skipped: %s\n", why);
    return 77;
}

static struct world *the_world;

struct world *world_of(tram_loop *loop) {
    (void)loop;
    return the_world;
}

static bool same_signals(const sigset_t *now, const sigset_t *before, const char *what) {
    bool same = true;
    for (int number = 1; number < NSIG; number++)
        if (sigismember(now, number) != sigismember(before, number)) {
            print_error("signal %d is %s, unlike before\n", number, sigismember(now, number) ? what : "free");
            same = false;
        }
    return same;
}

static void note_signals(sigset_t *ret_blocked, sigset_t *ret_pending) {
    pthread_sigmask(SIG_SETMASK, NULL, ret_blocked);
    sigpending(ret_pending);
}

static bool signals_are_as(const sigset_t *blocked_before, const sigset_t *pending_before) {
    sigset_t blocked, pending;
    note_signals(&blocked, &pending);
    return same_signals(&blocked, blocked_before, "blocked") && same_signals(&pending, pending_before, "pending");
}

/* Descriptor 0 is one like any other: as in a daemon, whoever opens something next gets it. */
static void give_up_input(void) {
    if (fcntl(0, F_GETFD) >= 0)
        close(0);
}

/* Until the next test. */
static void take_input(void) {
    if (fcntl(0, F_GETFD) < 0)
        (void)!open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static unsigned worlds; /* one may begin within another */

static int setup(void **state, bool debug) {
    struct world *world = calloc(1, sizeof *world);
    world->fail_after = SIZE_MAX;
    note_signals(&world->blocked, &world->pending);
    world->allocator = (tram_allocator){counted_allocate, counted_release, world};
    world->options = (tram_loop_options){
        .allocator = &world->allocator,
        .log = collect_log,
        .log_arg = world,
        .debug = debug,
        .slow_callback_ns = HOUR_NS, /* a machine that is busy is not what the log is asked about */
    };
    the_world = world;
    *state = world;
    calls_begin();
    if (worlds++ == 0) {
        give_up_input();
        locks_begin();
    }
    world->descriptors = open_descriptors();
    if (worlds == 1)
        take_input(); /* the loop gets others */
    world_reopen(world);
    if (worlds == 1)
        give_up_input();
    return 0;
}

int world_setup(void **state) {
    return setup(state, false);
}

int world_setup_debug(void **state) {
    return setup(state, true);
}

void world_reopen(struct world *world) {
    world_use_sys(world, &tram__sys);
}

void world_use_sys(struct world *world, const struct sys *sys) {
    assert_int_equal(tram_loop_free(world->loop), 0);
    world->loop = NULL;
    assert_int_equal(tram__loop_new(&world->options, sys, &world->loop), 0);
    assert_int_equal(tram_loop_set_exception_handler(world->loop, collect_exception, world), 0);
}

static struct calls counted;
static struct sys counting_sys;

static ssize_t counting_recv(int fd, void *data, size_t size, int flags) {
    counted.receives++;
    if (size > counted.largest_receive)
        counted.largest_receive = size;
    if (counted.receive_errno) {
        errno = counted.receive_errno;
        counted.receive_errno = 0;
        return -1;
    }
    if (counted.receive_limit && size > counted.receive_limit)
        size = counted.receive_limit;
    return tram__sys.recv(fd, data, size, flags);
}

struct calls *world_count_calls(struct world *world) {
    counted = (struct calls){0};
    counting_sys = tram__sys;
    counting_sys.recv = counting_recv;
    world_use_sys(world, &counting_sys);
    return &counted;
}

struct owned_recorder {
    struct recorder recorder;
    struct owned_recorder *next;
};
static struct owned_recorder *recorders;

void world_forget_recorders(struct world *world) {
    (void)world;
    while (recorders) {
        struct owned_recorder *next = recorders->next;
        free(recorders);
        recorders = next;
    }
}

/* What a loop counts has come to nothing once it is closed, whatever was in it; but a timer that TLS may have left. */
static bool is_balanced(const tram_loop *loop) {
    if (!loop || !tram_loop_is_closed(loop))
        return true;
    size_t queued = !list_empty(&loop->ready) + !list_empty(&loop->batch) + (loop->mailbox->taken != NULL);
    size_t open = 0, timers = loop->timers.count;
    if (timers && loop->slots[TRANSPORT_SLOT_TLS])
        timers--;
    for (uint32_t slot = 1; slot < slots_count(&loop->io_slots); slot++)
        open += io_of_slot(loop, slot) != NULL;
    if (!loop->stats.connections_now && !loop->unfinished && !loop->awaited && !timers && !queued && !open &&
        !loop->mailbox->unplanned && !loop->mailbox->bounded_pending)
        return true;
    print_error("a closed loop has %llu connections, %zu things unfinished and %zu awaited, %zu timers, %zu queues, "
                "%zu descriptors, %u posts of %u\n",
                (unsigned long long)loop->stats.connections_now, loop->unfinished, loop->awaited, timers, queued, open,
                (unsigned)loop->mailbox->bounded_pending, (unsigned)loop->mailbox->unplanned);
    return false;
}

int world_teardown(void **state) {
    struct world *world = *state;
    may_close_twice = false; /* and so close.c is linked to each */
    sigset_t blocked = world->blocked, pending = world->pending;
    world->fail_after = SIZE_MAX;
    memory_fail(0, 0);
    int status = world->loop ? tram_loop_close(world->loop) : 0;
    bool balanced = is_balanced(world->loop);
    if (!status || status == -ECHILD)
        status = tram_loop_free(world->loop);
    size_t leaked = world->live_blocks, leaked_bytes = world->live_bytes;
    int descriptors = open_descriptors() - world->descriptors;
    /* A lookup that nobody waits for any more may have a file open on its thread: it closes it by itself. */
    for (int tries = 0; descriptors && tries < 2000; tries++) {
        const struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
        descriptors = open_descriptors() - world->descriptors;
    }
    if (--worlds == 0)
        take_input();
    bool locks = worlds || locks_are_destroyed();
    world_forget_recorders(world);
    free(world);
    the_world = NULL;
    bool clean =
        !status && balanced && !leaked && !leaked_bytes && !descriptors && locks && signals_are_as(&blocked, &pending);
    if (!clean)
        print_error("left behind: loop %d, %zu blocks, %zd bytes, %d descriptors\n", status, leaked,
                    (ssize_t)leaked_bytes, descriptors);
    return clean ? 0 : -1;
}

bool ok_or_no_memory(int status) {
    if (status && status != -ENOMEM)
        print_error("%s\n", tram_error_name(status));
    return status == 0 || status == -ENOMEM;
}

bool had_memory(int status) {
    assert_true(status >= 0 || ok_or_no_memory(status));
    return status >= 0;
}

/* What a scenario is short of: the loop's memory, or all other that the library asks for. */
enum shortage { OF_THE_LOOP, OF_ALL_ELSE };

static void begin_shortage(struct world *world, enum shortage shortage, size_t allocations, bool once) {
    world->failures = 0;
    world->fail_once = once;
    if (shortage == OF_THE_LOOP)
        world->fail_after = allocations;
    else
        memory_fail_others(allocations + 1, once ? 1 : UINT64_MAX);
}

/* How often it was felt. */
static uint64_t end_shortage(struct world *world) {
    uint64_t failures = world->failures + memory_failed();
    world->fail_after = SIZE_MAX;
    memory_fail(0, 0);
    return failures;
}

/* Was anything refused? */
static bool run_short(struct world *world, enum shortage shortage, size_t allocations, bool once,
                      void (*scenario)(struct world *world)) {
    int descriptors = open_descriptors();
    world->log[0] = world->trace[0] = '\0';
    begin_shortage(world, shortage, allocations, once);
    tram_loop *loop = NULL;
    int status = tram__loop_new(&world->options, &tram__sys, &loop);
    if (status) {
        assert_int_equal(status, -ENOMEM);
        assert_null(loop);
    } else {
        world->loop = loop;
        scenario(world);
        assert_int_equal(tram_loop_close(loop), 0);
        assert_true(is_balanced(loop));
        assert_int_equal(tram_loop_free(loop), 0);
        world->loop = NULL;
    }
    bool felt = end_shortage(world) > 0;
    assert_int_equal(world->live_blocks, 0);
    assert_int_equal(world->live_bytes, 0);
    assert_int_equal(open_descriptors(), descriptors);
    return felt;
}

static void run_out_of(struct world *world, enum shortage shortage, bool once, void (*scenario)(struct world *world)) {
    assert_int_equal(tram_loop_free(world->loop), 0);
    world->loop = NULL;
    size_t allocations = 0;
    while (run_short(world, shortage, allocations, once, scenario))
        assert_true(++allocations < 100000);
    world_reopen(world);
}

void run_out_of_memory(struct world *world, bool once, void (*scenario)(struct world *world)) {
    run_out_of(world, OF_THE_LOOP, once, scenario);
}

void run_out_of_other_memory(struct world *world, bool once, void (*scenario)(struct world *world)) {
    run_out_of(world, OF_ALL_ELSE, once, scenario);
}

/* The array of timers doubles when it is full, which takes a block larger than others then. */
enum { TIMERS = 4096 };
static struct deadline fillers[TIMERS];
static size_t filler_count;

static void never(tram_loop *loop, struct deadline *deadline) {
    (void)loop, (void)deadline;
    fail();
}

void world_lacks_timers(struct world *world) {
    struct timers *timers = &world->loop->timers;
    for (filler_count = 0; timers->count < timers->heap_capacity || timers->heap_capacity < TIMERS; filler_count++) {
        fillers[filler_count] = (struct deadline){.expire = never};
        assert_int_equal(tram__deadline_start_after(world->loop, &fillers[filler_count], HOUR_NS), 0);
    }
    world->fail_size = TIMERS * sizeof *timers->heap;
}

void world_has_timers(struct world *world) {
    world->fail_size = 0;
    while (filler_count)
        deadline_cancel(world->loop, &fillers[--filler_count]);
}

/* The table of what a loop has grows by a block larger than others are. */
enum { SLOTS = 1024, SLOTS_BLOCK = 4096 };
static tram_protocol slot_fillers[SLOTS];
static size_t slot_filler_count;

void world_lacks_slots(struct world *world, size_t left) {
    static const tram_protocol_ops protocol_ops;
    static const tram_custom_ops custom_ops;
    do {
        assert_true(slot_filler_count < SLOTS);
        tram_protocol *filler = &slot_fillers[slot_filler_count++];
        *filler = (tram_protocol){.ops = &protocol_ops};
        assert_int_equal(tram_loop_create_custom(world->loop, &custom_ops, NULL, filler, NULL), 0);
    } while (world->loop->io_slots.free);
    run_ticks(world, 1);
    for (; left; left--)
        assert_int_equal(tram_transport_abort(slot_fillers[--slot_filler_count].transport), 0);
    run_ticks(world, 2);
    world->fail_size = SLOTS_BLOCK;
}

void world_has_slots(struct world *world) {
    world->fail_size = 0;
    while (slot_filler_count)
        assert_int_equal(tram_transport_abort(slot_fillers[--slot_filler_count].transport), 0);
    run_ticks(world, 2);
}

/* Workers may trace at the same time. */
void trace(struct world *world, const char *format, ...) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    char word[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(word, sizeof word, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&lock);
    append(world->trace, sizeof world->trace, word, " ");
    pthread_mutex_unlock(&lock);
}

int trace_callback(tram_loop *loop, void *arg) {
    trace(world_of(loop), "%s", (const char *)arg);
    return 0;
}

/* All that the library knows of what must hold. */
static void validate(const struct world *world) {
    if (world->loop && !tram_loop_is_closed(world->loop))
        tram__loop_validate(world->loop);
}

void run_ticks(struct world *world, int count) {
    while (count-- > 0) {
        assert_int_equal(tram_loop_stop(world->loop), 0);
        assert_int_equal(tram_loop_run_forever(world->loop), 0);
    }
    validate(world);
}

static int give_up(tram_loop *loop, void *arg) {
    (void)loop;
    *(bool *)arg = true;
    return 0;
}

void run_to_rest(struct world *world) {
    for (int ticks = 0; ticks < 1024; ticks++) { /* a kernel takes a large file in many small pieces */
        uint64_t timeout_ns;
        struct pollfd poll_fd = {.fd = tram_loop_backend_fd(world->loop), .events = POLLIN};
        assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
        if (timeout_ns != 0 && poll(&poll_fd, 1, 0) == 0) {
            validate(world);
            return;
        }
        assert_true(tram_loop_dispatch(world->loop) >= 0);
    }
    fail_msg("the loop does not come to rest; trace so far: %s", world->trace);
}

void run_until_true(struct world *world, bool (*condition)(void *arg), void *arg) {
    bool late = false;
    tram_handle timer;
    assert_int_equal(tram_loop_call_later(world->loop, PATIENCE_NS, give_up, &late, NULL, &timer), 0);
    while (!condition(arg)) {
        if (late)
            fail_msg("waited too long; trace so far: %s", world->trace);
        /* One blocking tick: what is waited for is an event. */
        uint64_t timeout_ns;
        struct pollfd poll_fd = {.fd = tram_loop_backend_fd(world->loop), .events = POLLIN};
        assert_int_equal(tram_loop_prepare(world->loop, &timeout_ns), 0);
        if (timeout_ns != 0)
            poll(&poll_fd, 1, timeout_ns == TRAM_FOREVER ? -1 : (int)((timeout_ns + 999999) / 1000000));
        assert_true(tram_loop_dispatch(world->loop) >= 0);
    }
    tram_handle_cancel(world->loop, timer);
    validate(world);
}

static bool flag_is_set(void *arg) {
    return *(const volatile bool *)arg;
}

void run_until(struct world *world, const bool *flag) {
    run_until_true(world, flag_is_set, (void *)(uintptr_t)flag);
}

struct wanted_word {
    struct world *world;
    const char *word;
};

static bool word_is_traced(void *arg) {
    struct wanted_word *wanted = arg;
    return strstr(wanted->world->trace, wanted->word) != NULL;
}

void run_until_traced(struct world *world, const char *word) {
    struct wanted_word wanted = {world, word};
    run_until_true(world, word_is_traced, &wanted);
}

void *on_another_thread(void *(*function)(void *arg), void *arg) {
    pthread_t thread;
    void *result;
    assert_int_equal(pthread_create(&thread, NULL, function, arg), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    return result;
}

/* ---- A protocol that writes down what happens ---- */

static struct recorder *of(tram_protocol *protocol) {
    return (struct recorder *)protocol;
}

static void say(struct recorder *recorder, const char *format, ...) {
    char word[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(word, sizeof word, format, arguments);
    va_end(arguments);
    if (recorder->name)
        trace(recorder->world, "%s.%s", recorder->name, word);
    else
        trace(recorder->world, "%s", word);
}

static int answer(struct recorder *recorder, const char *event) {
    return recorder->on ? recorder->on(recorder, event) : 0;
}

static int recorder_made(tram_protocol *protocol, tram_transport *transport) {
    struct recorder *recorder = of(protocol);
    assert_ptr_equal(protocol->transport, transport);
    assert_false(recorder->made);
    recorder->made = true;
    say(recorder, "made");
    return answer(recorder, "made");
}

static int recorder_data(tram_protocol *protocol, const void *data, size_t size) {
    struct recorder *recorder = of(protocol);
    assert_true(size > 0);
    assert_false(recorder->lost);
    recorder->received += size;
    size_t room = sizeof recorder->bytes - recorder->kept;
    if (recorder->keep && size <= room) {
        memcpy(recorder->bytes + recorder->kept, data, size);
        recorder->kept += size;
    }
    if (!recorder->quiet_data)
        say(recorder, "data:%zu", size);
    return answer(recorder, "data");
}

static int recorder_eof(tram_protocol *protocol) {
    struct recorder *recorder = of(protocol);
    assert_false(recorder->lost);
    say(recorder, "eof");
    int status = answer(recorder, "eof");
    return status ? status : recorder->eof_returns;
}

static int recorder_lost(tram_protocol *protocol, const tram_error *error) {
    struct recorder *recorder = of(protocol);
    assert_false(recorder->lost);
    checked_error(error, "connection_lost");
    recorder->lost = true;
    recorder->lost_code = error ? error->code : 0;
    recorder->lost_user = error ? error->user : NULL;
    say(recorder, "lost:%s", error ? tram_error_name(error->code) : "0");
    return answer(recorder, "lost");
}

static int recorder_pause(tram_protocol *protocol) {
    say(of(protocol), "pause");
    return answer(of(protocol), "pause");
}

static int recorder_resume(tram_protocol *protocol) {
    say(of(protocol), "resume");
    return answer(of(protocol), "resume");
}

static void recorder_released(tram_protocol *protocol) {
    struct recorder *recorder = of(protocol);
    assert_false(recorder->was_released);
    recorder->was_released = true;
    say(recorder, "released");
    answer(recorder, "released");
}

static int recorder_get_buffer(tram_protocol *protocol, ptrdiff_t hint, void **ret_memory, size_t *ret_size) {
    struct recorder *recorder = of(protocol);
    assert_false(recorder->lost);
    if (protocol->transport && !recorder->takes_hints)
        assert_int_equal(hint, -1);
    recorder->size_hint = hint;
    say(recorder, "get_buffer");
    *ret_memory = recorder->buffer;
    *ret_size = recorder->buffer_size;
    return answer(recorder, "get_buffer");
}

static int recorder_updated(tram_protocol *protocol, size_t size) {
    struct recorder *recorder = of(protocol);
    assert_true(size > 0 && size <= recorder->buffer_size);
    recorder->received += size;
    if (recorder->keep && size <= sizeof recorder->bytes - recorder->kept) {
        memcpy(recorder->bytes + recorder->kept, recorder->buffer, size);
        recorder->kept += size;
    }
    say(recorder, "updated:%zu", size);
    return answer(recorder, "updated");
}

static int recorder_datagram(tram_protocol *protocol, const void *data, size_t size, const tram_socket_address *peer) {
    struct recorder *recorder = of(protocol);
    assert_false(recorder->lost);
    recorder->datagrams++;
    recorder->received += size;
    recorder->has_peer = peer != NULL;
    if (peer)
        recorder->peer = *peer;
    if (recorder->keep && size <= sizeof recorder->bytes - recorder->kept) {
        memcpy(recorder->bytes + recorder->kept, data, size);
        recorder->kept += size;
    }
    if (!recorder->quiet_data)
        say(recorder, "datagram:%zu", size);
    return answer(recorder, "datagram");
}

static int recorder_error(tram_protocol *protocol, const tram_error *error) {
    struct recorder *recorder = of(protocol);
    assert_false(recorder->lost);
    say(recorder, "error:%s", tram_error_name(error->code));
    return answer(recorder, "error");
}

static const tram_protocol_ops plain_ops = {
    .connection_made = recorder_made,
    .data_received = recorder_data,
    .eof_received = recorder_eof,
    .connection_lost = recorder_lost,
    .pause_writing = recorder_pause,
    .resume_writing = recorder_resume,
    .datagram_received = recorder_datagram,
    .error_received = recorder_error,
    .released = recorder_released,
};

static const tram_protocol_ops buffered_ops = {
    .connection_made = recorder_made,
    .eof_received = recorder_eof,
    .connection_lost = recorder_lost,
    .pause_writing = recorder_pause,
    .resume_writing = recorder_resume,
    .get_buffer = recorder_get_buffer,
    .buffer_updated = recorder_updated,
    .released = recorder_released,
};

struct recorder *recorder_new(struct world *world, const char *name) {
    struct owned_recorder *owned = calloc(1, sizeof *owned);
    owned->next = recorders;
    recorders = owned;
    owned->recorder.base.ops = &plain_ops;
    owned->recorder.world = world;
    owned->recorder.name = name;
    return &owned->recorder;
}

struct recorder *recorder_new_buffered(struct world *world, const char *name) {
    struct recorder *recorder = recorder_new(world, name);
    recorder->base.ops = &buffered_ops;
    recorder->buffer_size = sizeof recorder->buffer;
    return recorder;
}

int recorder_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    *ret_protocol = &recorder_new(arg, NULL)->base;
    return 0;
}

struct recorder *world_last_recorder(struct world *world) {
    (void)world;
    return recorders ? &recorders->recorder : NULL;
}

/* ---- Sockets ---- */

void set_blocking(int fd, bool blocking) {
    int flags = fcntl(fd, F_GETFL);
    assert_true(flags >= 0);
    assert_int_equal(fcntl(fd, F_SETFL, blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK), 0);
}

/* A listening socket on a port that the kernel chose, or -1 with errno. */
static int try_to_listen(int backlog, struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof *address;
    assert_true(fd >= 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (struct sockaddr *)address, size) == 0 && listen(fd, backlog) == 0 &&
        getsockname(fd, (struct sockaddr *)address, &size) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

int tcp_listener(int backlog, uint16_t *ret_port) {
    struct sockaddr_in address;
    int fd = try_to_listen(backlog, &address);
    /* Somebody else may get the port between bind and listen. */
    for (int tries = 0; fd < 0 && errno == EADDRINUSE && tries < 100; tries++)
        fd = try_to_listen(backlog, &address);
    assert_true(fd >= 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

const char *loopback_name(void) {
    struct addrinfo *found, hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    if (getaddrinfo("localhost", NULL, &hints, &found) != 0)
        return "127.0.0.1";
    freeaddrinfo(found);
    return "localhost";
}

uint16_t free_port(void) {
    enum { FIRST = 12000, COUNT = 20000, EACH = 8 }; /* below where Linux takes those it chooses from: 32768 */
    static unsigned next;
    for (unsigned tries = 0; tries < 1000; tries++) {
        unsigned place = ((unsigned)getpid() * EACH + next++) % COUNT;
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(FIRST + place))};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool is_free = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
        close(fd);
        if (is_free)
            return (uint16_t)(FIRST + place);
    }
    fail_msg("no port is free");
    return 0;
}

/* Bound and not listening, or -1 with errno. */
static int try_to_hold(const struct sockaddr *address, socklen_t size) {
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, off = 0;
    if (fd < 0)
        return -1;
    if (address->sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 && bind(fd, address, size) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

uint16_t hold_port(int *ret_fd) {
    struct sockaddr_in6 both = {.sin6_family = AF_INET6};
    struct sockaddr_in one = {.sin_family = AF_INET};
    struct sockaddr_in6 name; /* the port is at the same place in both */
    socklen_t size = sizeof name;
    int fd = try_to_hold((struct sockaddr *)&both, sizeof both);
    if (fd < 0)
        fd = try_to_hold((struct sockaddr *)&one, sizeof one);
    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &size), 0);
    *ret_fd = fd;
    return ntohs(name.sin6_port);
}

static bool is_refused(uint16_t port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = try_to_hold((struct sockaddr *)&address, sizeof address);
    if (fd < 0) {
        assert_int_equal(errno, EADDRINUSE);
        return false;
    }
    assert_int_equal(tcp_connect(port), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(fd);
    return true;
}

void assert_nobody_listens(uint16_t port) {
    if (!is_refused(port))
        fail_msg("somebody has port %u", port);
}

void await_nobody_listens(uint16_t port) {
    for (int tries = 0; !is_refused(port); tries++) {
        assert_true(tries < 20000);
        poll(NULL, 0, 1);
    }
}

int tcp_connect(uint16_t port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

void tcp_pair(int ret_fds[2]) {
    uint16_t port;
    int listener = tcp_listener(1, &port);
    ret_fds[0] = tcp_connect(port);
    assert_true(ret_fds[0] >= 0);
    ret_fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(ret_fds[1] >= 0);
    close(listener);
    set_blocking(ret_fds[0], false);
    set_blocking(ret_fds[1], false);
}

void unix_pair(int ret_fds[2]) {
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret_fds), 0);
}

void close_with_reset(int fd) {
    struct linger linger = {.l_onoff = 1};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(fd);
}

void shrink_buffers(int fd) {
    int size = 1;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
}

static void wait_for(struct world *world, int fd, short events) {
    struct pollfd poll_fd = {.fd = fd, .events = events};
    if (world)
        run_ticks(world, 1);
    poll(&poll_fd, 1, world ? 1 : 1000);
}

void send_exactly(struct world *world, int fd, const void *data, size_t size) {
    const char *from = data;
    for (int idle = 0; size;) {
        ssize_t sent = send(fd, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            from += sent;
            size -= (size_t)sent;
            idle = 0;
            continue;
        }
        assert_true(sent < 0 && (errno == EAGAIN || errno == EINTR));
        assert_true(++idle < 20000);
        wait_for(world, fd, POLLOUT);
    }
}

void receive_exactly(struct world *world, int fd, void *data, size_t size) {
    char *to = data;
    for (int idle = 0; size;) {
        ssize_t received = recv(fd, to, size, MSG_DONTWAIT);
        if (received > 0) {
            to += received;
            size -= (size_t)received;
            idle = 0;
            continue;
        }
        assert_true(received < 0 && (errno == EAGAIN || errno == EINTR));
        assert_true(++idle < 20000);
        wait_for(world, fd, POLLIN);
    }
}

bool receive_eof(struct world *world, int fd) {
    char bytes[4096];
    for (int idle = 0;;) {
        ssize_t received = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (received == 0)
            return true;
        if (received > 0)
            continue;
        if (errno != EAGAIN && errno != EINTR)
            return false;
        assert_true(++idle < 20000);
        wait_for(world, fd, POLLIN);
    }
}

void await_events(int fd, short events) {
    struct pollfd poll_fd = {.fd = fd, .events = events};
    assert_int_equal(poll(&poll_fd, 1, 20000), 1);
}

int transport_try_new(struct world *world, int fd, tram_protocol *protocol, tram_future *creator,
                      tram_transport **ret_transport) {
    struct stream_options options = {.creator = creator};
    int status = transport_state_open(world->loop);
    return status ? status : tram__stream_new(world->loop, fd, protocol, &options, ret_transport);
}

tram_transport *transport_new(struct world *world, int fd, struct recorder *recorder) {
    tram_transport *transport;
    assert_int_equal(transport_try_new(world, fd, &recorder->base, NULL, &transport), 0);
    return transport;
}

struct wire wire_new(struct world *world, struct recorder *recorder) {
    int fds[2];
    tcp_pair(fds);
    return (struct wire){
        .transport = transport_new(world, fds[0], recorder), .recorder = recorder, .fd = fds[0], .peer = fds[1]};
}

struct wire wire_new_made(struct world *world, struct recorder *recorder) {
    struct wire wire = wire_new(world, recorder);
    run_ticks(world, 1);
    assert_true(recorder->made);
    world->trace[0] = '\0';
    return wire;
}

/* The kernel may still be about to carry bytes over when it takes no more of them: on a busy machine it does so later.
 */
static void await_arrival(int fd) {
    uint32_t before = 0;
    /* What the peer's kernel has no room for stays under way, and is sent again and again. */
    for (int unchanged = 0; unchanged < 50; unchanged++) {
        struct tcp_info info;
        socklen_t size = sizeof info;
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || info.tcpi_unacked == 0)
            return;
        unchanged = info.tcpi_unacked == before ? unchanged : 0;
        before = info.tcpi_unacked;
        poll(NULL, 0, 1);
    }
}

/* Until it takes nothing more, and will not before the peer reads. */
static size_t fill_kernel(int fd) {
    static const char bytes[4096];
    size_t filled = 0;
    for (int idle = 0; idle < 2;) {
        ssize_t sent = send(fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            filled += (size_t)sent;
            idle = 0;
            continue;
        }
        idle++;
        await_arrival(fd);
    }
    return filled;
}

void fill(tram_transport *transport, size_t queued) {
    static const char bytes[4096];
    const tram_socket *socket = tram_transport_get_extra_info(transport, "socket", NULL);
    bool tcp = socket && socket->type == SOCK_STREAM && (socket->family == AF_INET || socket->family == AF_INET6);
    if (tcp && !tram_transport_is_closing(transport) && tram_transport_get_write_buffer_size(transport) == 0)
        stats_add(&tram_transport_get_loop(transport)->stats.bytes_sent, fill_kernel(socket->fd));
    while (tram_transport_get_write_buffer_size(transport) <= queued)
        assert_int_equal(tram_transport_write(transport, bytes, sizeof bytes), 0);
}

int detach(tram_transport *transport, struct detached *ret_detached) {
    *ret_detached = (struct detached){.fd = -1};
    tram_detached *detached = NULL;
    int status = tram_transport_detach(transport, &detached);
    if (status) {
        assert_null(detached);
        return status;
    }
    ret_detached->fd = tram_detached_take_fd(detached);
    assert_int_equal(tram_detached_take_fd(detached), TRAM_ESTATE);
    if (tram_detached_unread(detached))
        ret_detached->unread = tram_buffer_hold(tram_detached_unread(detached));
    tram_detached_free(detached);
    return 0;
}
