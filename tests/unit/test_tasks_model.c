/*
 * Random programs of tasks, compared with asyncio: tests/support/tasks_model.py makes them, runs them with asyncio in
 * virtual time, and asks this program what tram makes of them. Every step is compared, in the order of all tasks.
 *
 * TRAM_TASK_PROGRAMS says how many, TRAM_TASK_SEED where to begin.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "core/loop/loop.h"
#include "support/tasks.h"

enum op {
    OP_YIELD,
    OP_SLEEP,
    OP_SPAWN,
    OP_JOIN,
    OP_CANCEL,
    OP_CANCEL_SELF,
    OP_FAIL,
    OP_GROUP,
    OP_GROUP_SPAWN,
    OP_TIMEOUT,
    OP_GATHER,
    OP_WAIT,
    OP_SHIELD,
    OP_WAIT_FOR,
    OP_CATCH,
    OP_EVENT_WAIT,
    OP_EVENT_SET,
    OP_EVENT_CLEAR,
    OP_LOCK,
    OP_SEMAPHORE,
    OP_PUT,
    OP_GET,
    OP_FINALLY,
    OP_RETURN,
    OP_AS_COMPLETED,
    OP_BARRIER
};

#define TASKS 256
#define UNIT  1000000000ull /* of time in programs */
#define NONE  99            /* what an op gives whose task is not there */

static struct {
    tram_task *tasks[TASKS];
    tram_event events[2];
    tram_lock locks[2];
    tram_semaphore semaphore;
    tram_barrier barrier;
    tram_queue *queues[2];
    char *trace;
    size_t trace_size;
    FILE *out;
} program;

/* ---- Virtual time ---- */

static struct sys virtual_sys;
static uint64_t now_ns;
static tram_loop *virtual_loop;

static int virtual_clock(clockid_t clock, struct timespec *ret_time) {
    (void)clock;
    *ret_time = (struct timespec){(time_t)(now_ns / 1000000000u), (long)(now_ns % 1000000000u)};
    return 0;
}

static int virtual_wait(int epoll, struct epoll_event *events, int count, int timeout_ms) {
    (void)epoll;
    (void)events;
    (void)count;
    if (timeout_ms < 0)
        tram_loop_stop(virtual_loop); /* nothing will ever happen again */
    else
        now_ns += (uint64_t)timeout_ms * 1000000u;
    return 0;
}

static int virtual_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *timeout) {
    if (!timeout)
        return virtual_wait(epoll, events, count, -1);
    now_ns += (uint64_t)timeout->tv_sec * 1000000000u + (uint64_t)timeout->tv_nsec;
    return 0;
}

/* ---- Running a program ---- */

struct context {
    int number;
    tram_group *group;
    int result;
    bool returns;
};

struct body {
    int number;
    const int *block;
    int size;
};

static const struct {
    int status, code;
} codes[] = {{-EIO, -1},           {-EPIPE, -2},          {-ENOENT, -3},     {TRAM_ECANCELLED, -10},
             {TRAM_ETIMEOUT, -11}, {TRAM_EMULTIPLE, -12}, {TRAM_ESTATE, -13}};

static int code_of(int status) {
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].status == status)
            return codes[i].code;
    return status;
}

static int run_block(struct context *context, const int *block, int size);

static int run_body(void *arg) {
    struct body body = *(struct body *)arg;
    free(arg);
    struct context context = {.number = body.number};
    int status = run_block(&context, body.block, body.size);
    return status ? status : context.result;
}

static int spawn_body(tram_group *group, const int *op) {
    struct body *body = malloc(sizeof *body);
    *body = (struct body){op[1], op + 3, op[2]};
    tram_task **task = &program.tasks[op[1]];
    tram_task_options options = {.discard = free};
    int status = group ? tram_group_spawn(group, run_body, body, &options, task)
                       : tram_task_spawn(virtual_loop, run_body, body, &options, task);
    if (status)
        free(body);
    return status;
}

static size_t find_futures(const int *numbers, int count, tram_future **ret_futures) {
    size_t found = 0;
    for (int i = 0; i < count; i++)
        if (numbers[i] < TASKS && program.tasks[numbers[i]])
            ret_futures[found++] = tram_task_future(program.tasks[numbers[i]]);
    return found;
}

static int await_and_release(tram_future *future) {
    void *value = NULL;
    int status = tram_await(future, &value);
    tram_future_release(future);
    return status ? status : (int)(intptr_t)value;
}

static int await_number(int number) {
    if (number >= TASKS || !program.tasks[number])
        return NONE;
    return await_and_release(tram_future_hold(tram_task_future(program.tasks[number])));
}

static int run_gather(const int *op) {
    tram_future *futures[16], *all;
    size_t count = find_futures(op + 3, op[2], futures);
    assert_int_equal(tram_gather(virtual_loop, futures, count, op[1] ? TRAM_GATHER_ERRORS : 0, &all), 0);
    return await_and_release(all);
}

static uint64_t delay_of(int units) {
    return units < 0 ? TRAM_FOREVER : (uint64_t)units * UNIT;
}

static int run_wait(const int *op) {
    tram_future *futures[16];
    size_t count = find_futures(op + 4, op[3], futures);
    return count ? tram_wait(futures, count, delay_of(op[2]), (tram_wait_mode)op[1]) : NONE;
}

static int run_as_completed(const int *op) {
    tram_future *futures[16], *future;
    size_t count = find_futures(op + 3, op[2], futures);
    tram_completions *completions;
    assert_int_equal(tram_as_completed(futures, count, delay_of(op[1]), &completions), 0);
    int status, seen = 0;
    while ((status = tram_completions_next(completions, &future)) > 0) {
        int ended = tram_future_result(future, NULL);
        if (ended == TRAM_ECANCELLED || ended == TRAM_ETIMEOUT) {
            status = ended;
            break;
        }
        seen++;
    }
    tram_completions_free(completions);
    return status ? status : seen;
}

static int run_shield(int number) {
    tram_future *outer;
    if (number >= TASKS || !program.tasks[number])
        return NONE;
    assert_int_equal(tram_shield(tram_task_future(program.tasks[number]), &outer), 0);
    return await_and_release(outer);
}

static int run_wait_for(int number, int delay) {
    if (number >= TASKS || !program.tasks[number])
        return NONE;
    void *value = NULL;
    int status = tram_wait_for(tram_task_future(program.tasks[number]), (uint64_t)delay * UNIT, &value);
    return status ? status : (int)(intptr_t)value;
}

static int run_group(struct context *context, const int *op) {
    tram_group *before = context->group;
    assert_int_equal(tram_group_begin(&context->group), 0);
    int status = run_block(context, op + 2, op[1]);
    status = tram_group_end(context->group, status);
    context->group = before;
    return status;
}

static int run_timeout(struct context *context, const int *op) {
    tram_timeout *timeout;
    assert_int_equal(tram_timeout_begin((uint64_t)op[1] * UNIT, &timeout), 0);
    return tram_timeout_end(timeout, run_block(context, op + 3, op[2]));
}

static int run_catch(struct context *context, const int *op) {
    int status = run_block(context, op + 3, op[2]);
    if (op[1] && status == TRAM_ECANCELLED)
        tram_task_uncancel(tram_task_current());
    return tram_task_cancelling(tram_task_current()) * 100 + (status ? code_of(status) : 0);
}

static int run_lock(struct context *context, const int *op) {
    tram_lock *lock = &program.locks[op[1]];
    int status = tram_lock_acquire(lock);
    if (status)
        return status;
    status = run_block(context, op + 3, op[2]);
    assert_int_equal(tram_lock_release(lock), 0);
    return status;
}

static int run_semaphore(struct context *context, const int *op) {
    int status = tram_semaphore_acquire(&program.semaphore);
    if (status)
        return status;
    status = run_block(context, op + 2, op[1]);
    assert_int_equal(tram_semaphore_release(&program.semaphore), 0);
    return status;
}

static int run_get(int which) {
    void *item = NULL;
    int status = tram_queue_get(program.queues[which], &item);
    return status ? status : (int)(intptr_t)item;
}

static int run_finally(struct context *context, const int *op) {
    int status = run_block(context, op + 2, op[1]);
    struct context before = *context;
    context->returns = false;
    context->result = 0;
    const int *last = op + 2 + op[1];
    int last_status = run_block(context, last + 1, last[0]);
    if (!last_status && !context->returns) { /* an error drops what was to be returned */
        context->returns = before.returns;
        context->result = before.result;
    }
    return last_status ? last_status : status;
}

static int run_cancel(int number) {
    return number < TASKS && program.tasks[number] ? tram_task_cancel(program.tasks[number]) : NONE;
}

static int run_return(struct context *context, int value) {
    context->returns = true;
    context->result = value;
    return value;
}

static int set_event(int which, bool set) {
    if (set)
        tram_event_set(&program.events[which]);
    else
        tram_event_clear(&program.events[which]);
    return 0;
}

static int run_op(struct context *context, const int *op) {
    static const int failures[] = {0, -EIO, -EPIPE, -ENOENT};
    switch ((enum op)op[0]) {
    case OP_YIELD:
        return tram_yield();
    case OP_SLEEP:
        return tram_sleep((uint64_t)op[1] * UNIT);
    case OP_SPAWN:
        return spawn_body(NULL, op);
    case OP_JOIN:
        return await_number(op[1]);
    case OP_CANCEL:
        return run_cancel(op[1]);
    case OP_CANCEL_SELF:
        return tram_task_cancel(tram_task_current());
    case OP_FAIL:
        return failures[op[1]];
    case OP_GROUP:
        return run_group(context, op);
    case OP_GROUP_SPAWN:
        return spawn_body(context->group, op);
    case OP_TIMEOUT:
        return run_timeout(context, op);
    case OP_GATHER:
        return run_gather(op);
    case OP_WAIT:
        return run_wait(op);
    case OP_SHIELD:
        return run_shield(op[1]);
    case OP_WAIT_FOR:
        return run_wait_for(op[1], op[2]);
    case OP_CATCH:
        return run_catch(context, op);
    case OP_EVENT_WAIT:
        return tram_event_wait(&program.events[op[1]]);
    case OP_EVENT_SET:
    case OP_EVENT_CLEAR:
        return set_event(op[1], op[0] == OP_EVENT_SET);
    case OP_LOCK:
        return run_lock(context, op);
    case OP_SEMAPHORE:
        return run_semaphore(context, op);
    case OP_PUT:
        return tram_queue_put(program.queues[op[1]], (void *)(intptr_t)op[2]);
    case OP_GET:
        return run_get(op[1]);
    case OP_FINALLY:
        return run_finally(context, op);
    case OP_RETURN:
        return run_return(context, op[1]);
    case OP_AS_COMPLETED:
        return run_as_completed(op);
    case OP_BARRIER:
        return tram_barrier_wait(&program.barrier);
    }
    return TRAM_EVALUE;
}

/* Numbers of an op, itself included. */
static int size_of(const int *op) {
    switch ((enum op)op[0]) {
    case OP_YIELD:
    case OP_CANCEL_SELF:
    case OP_BARRIER:
        return 1;
    case OP_GROUP:
    case OP_SEMAPHORE:
        return 2 + op[1];
    case OP_SPAWN:
    case OP_GROUP_SPAWN:
    case OP_TIMEOUT:
    case OP_CATCH:
    case OP_LOCK:
    case OP_GATHER:
    case OP_AS_COMPLETED:
        return 3 + op[2];
    case OP_WAIT:
        return 4 + op[3];
    case OP_WAIT_FOR:
    case OP_PUT:
        return 3;
    case OP_FINALLY:
        return 3 + op[1] + op[2 + op[1]];
    default:
        return 2;
    }
}

static int run_block(struct context *context, const int *block, int size) {
    for (const int *op = block; op < block + size; op += size_of(op)) {
        int status = run_op(context, op);
        bool failed = status < 0 && op[0] != OP_CATCH;
        fprintf(program.out, "%d.%d:%d ", context->number, op[0], failed ? code_of(status) : status);
        if (failed)
            return status;
        if (context->returns)
            break;
    }
    return 0;
}

static void note_end(int number, tram_task *task) {
    if (!tram_task_done(task))
        fprintf(program.out, "%d=pending ", number);
    else if (tram_future_cancelled(tram_task_future(task)))
        fprintf(program.out, "%d=cancelled ", number);
    else if (tram_task_result(task) < 0)
        fprintf(program.out, "%d=%d ", number, code_of(tram_task_result(task)));
    else
        fprintf(program.out, "%d==%d ", number, tram_task_result(task));
}

static void open_program(void) {
    memset(&program, 0, sizeof program);
    program.out = open_memstream(&program.trace, &program.trace_size);
    tram_semaphore_init(&program.semaphore, 1, false);
    assert_int_equal(tram_barrier_init(&program.barrier, 2), 0);
    for (size_t i = 0; i < 2; i++) {
        tram_queue_options options = {.max_size = i};
        assert_int_equal(tram_queue_new(virtual_loop, &options, &program.queues[i]), 0);
    }
}

/* What still waits is cancelled until it has ended: what it has on its stack is then freed. That is not compared. */
static void end_all(void) {
    bool waits = true;
    for (int round = 0; waits && round < 1000; round++) {
        waits = false;
        for (int i = 0; i < TASKS; i++)
            waits |= program.tasks[i] && tram_task_cancel(program.tasks[i]);
        assert_int_equal(tram_loop_run_forever(virtual_loop), 0);
    }
    assert_false(waits);
}

/* The loop is new for each program, and closing it ends what still waits. */
static void run_program(struct world *world, const int *numbers, int count) {
    world_use_sys(world, &virtual_sys);
    virtual_loop = world->loop;
    open_program();
    int *main_op = malloc(((size_t)count + 3) * sizeof *main_op);
    main_op[0] = OP_SPAWN, main_op[1] = 0, main_op[2] = count;
    memcpy(main_op + 3, numbers, (size_t)count * sizeof *numbers);
    assert_int_equal(spawn_body(NULL, main_op), 0);
    assert_int_equal(tram_loop_run_forever(virtual_loop), 0);
    for (int i = 0; i < TASKS; i++)
        if (program.tasks[i])
            note_end(i, program.tasks[i]);
    fflush(program.out);
    char *trace = strdup(program.trace);
    end_all();
    tram_loop_close(virtual_loop);
    for (int i = 0; i < TASKS; i++)
        tram_task_release(program.tasks[i]);
    tram_queue_free(program.queues[0]);
    tram_queue_free(program.queues[1]);
    fclose(program.out);
    free(program.trace);
    program.trace = trace;
    free(main_op);
}

/* ---- The other side ---- */

static pid_t start_model(FILE **ret_in, FILE **ret_out) {
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char path[4096];
        const char *count = getenv("TRAM_TASK_PROGRAMS"), *seed = getenv("TRAM_TASK_SEED");
        const char *many = getenv("TRAM_TEST_FULL") ? "20000" : "300";
        const char *root = getenv("TRAM_SOURCE_DIR");
        snprintf(path, sizeof path, "%s/tests/support/tasks_model.py", root ? root : ".");
        dup2(out[0], STDIN_FILENO);
        dup2(in[1], STDOUT_FILENO);
        closefrom(3);
        unsetenv("LD_PRELOAD");
        execlp("python3", "python3", path, count ? count : many, seed ? seed : "1", (char *)NULL);
        _exit(127);
    }
    close(in[1]);
    close(out[0]);
    *ret_in = fdopen(in[0], "r");
    *ret_out = fdopen(out[1], "w");
    return child;
}

static bool read_numbers(FILE *in, int **ret_numbers, int *ret_count) {
    if (fscanf(in, "%d", ret_count) != 1)
        return false;
    *ret_numbers = malloc(((size_t)*ret_count + 1) * sizeof **ret_numbers);
    for (int i = 0; i < *ret_count; i++)
        assert_int_equal(fscanf(in, "%d", &(*ret_numbers)[i]), 1);
    return true;
}

static void answer(FILE *out) {
    size_t size = strlen(program.trace);
    if (size && program.trace[size - 1] == ' ')
        program.trace[size - 1] = '\0';
    fprintf(out, "%s\n", program.trace);
    fflush(out);
    free(program.trace);
}

/* rules
 */
static void test_random_programs_do_what_asyncio_does(void **state) {
    struct world *world = *state;
    virtual_sys = tram__sys;
    virtual_sys.clock_gettime = virtual_clock;
    virtual_sys.epoll_wait = virtual_wait;
    virtual_sys.epoll_pwait2 = virtual_pwait2;
    FILE *in, *out;
    pid_t model = start_model(&in, &out);
    int *numbers, count, programs = 0;
    while (read_numbers(in, &numbers, &count)) {
        run_program(world, numbers, count);
        answer(out);
        free(numbers);
        programs++;
    }
    fclose(in);
    fclose(out);
    int status;
    assert_int_equal(waitpid(model, &status, 0), model);
    print_message("%d programs\n", programs);
    assert_int_equal(status, 0);
    assert_true(programs > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TASK_TEST(test_random_programs_do_what_asyncio_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
