/*
 * The same work on every worker, and one future for all: a tram_loop_submit() to each. The future holds itself until
 * the last worker has answered, or its loop closes; the work is counted apart, since workers may use its argument when
 * the asking loop is gone.
 */
#include <errno.h>
#include <stdatomic.h>

#include "core/base/invalid.h"
#include "core/base/memory.h"
#include "core/jobs/future.h"
#include "core/loop/report.h"
#include "core/runtime/runtime.h"
#include <tram/message.h>
#include <tram/runtime.h>

/* What the workers have in common. */
struct each_work {
    atomic_uint references;
    tram_submit_function function;
    void *arg;
    tram_discard discard; /* NULL: none */
};

struct each_answer {
    struct each *each;
    tram_future *future; /* of the submitted work; NULL: it was not, or has been answered */
};

struct each {
    tram_future future;
    unsigned count;
    unsigned left;               /* answers to come */
    tram_worker_result *results; /* behind the answers */
    struct each_answer answers[];
};

static const struct future_kind each_kind = {.name = "runtime_each"};

static void work_release(void *arg) {
    struct each_work *work = arg;
    if (atomic_fetch_sub_explicit(&work->references, 1, memory_order_acq_rel) > 1)
        return;
    if (work->discard)
        work->discard(work->arg);
    memory_put(&tram__memory_default, work, sizeof *work);
}

static int run_work(tram_loop *loop, void *arg, void **ret_value) {
    struct each_work *work = arg;
    loop_stands_for(loop, (tram_callback)(void (*)(void))run_work, (const void *)(uintptr_t)work->function);
    int status = work->function(loop, work->arg, ret_value);
    work_release(work);
    return status;
}

/* Once for each answer, whether it came or, as the loop closes, will not. */
static void answered(struct each_answer *answer) {
    struct each *each = answer->each;
    tram__future_drop(answer->future);
    answer->future = NULL;
    if (--each->left == 0) {
        tram__future_finish(&each->future, each->results);
        tram__future_drop(&each->future);
    }
}

static int take_answer(tram_future *future, void *arg) {
    struct each_answer *answer = arg;
    tram_worker_result *result = &answer->each->results[answer - answer->each->answers];
    result->status = tram_future_result(future, &result->value);
    answered(answer);
    return 0;
}

static void lose_answer(void *arg) {
    struct each_answer *answer = arg;
    tram__future_finish_cancelled(&answer->each->future);
    answered(answer);
}

/* Its answer is the status where it could not be asked. */
static int ask_worker(struct each_answer *answer, tram_loop *worker, struct each_work *work) {
    tram_loop *loop = answer->each->future.loop;
    int status = tram_loop_submit(loop, worker, run_work, work, work_release, &answer->future);
    if (status) {
        work_release(work);
        return status;
    }
    answer->each->left++;
    /* The first callback of a future needs no memory, and the loop is open. */
    return tram_future_add_done_callback_with_discard(answer->future, take_answer, answer, lose_answer);
}

static struct each_work *work_new(tram_submit_function function, void *arg, tram_discard discard, unsigned references) {
    struct each_work *work = memory_get(&tram__memory_default, sizeof *work);
    if (work)
        *work = (struct each_work){.references = references, .function = function, .arg = arg, .discard = discard};
    return work;
}

static int each_new(tram_loop *loop, unsigned count, struct each **ret_each) {
    size_t answers = count * sizeof(struct each_answer), results = count * sizeof(tram_worker_result);
    struct each *each;
    int status = tram__future_new(loop, &each_kind, sizeof *each + answers + results, &each);
    if (status)
        return status;
    each->count = count;
    each->results = (tram_worker_result *)(void *)&each->answers[count];
    *ret_each = each;
    return 0;
}

int tram_runtime_each(tram_runtime *runtime, tram_loop *loop, tram_submit_function function, void *arg,
                      tram_discard discard, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (!status)
        status = runtime_enter(runtime);
    if (status)
        return status;
    if (!function)
        return tram__invalid("function");
    struct each *each;
    unsigned count = tram_runtime_worker_count(runtime);
    status = each_new(loop, count, &each);
    if (status)
        return status;
    struct each_work *work = work_new(function, arg, discard, count);
    if (!work) {
        tram__future_drop(&each->future);
        return -ENOMEM;
    }
    each->left = 1; /* this call */
    *ret_future = tram_future_hold(&each->future);
    for (unsigned i = 0; i < count; i++) {
        each->answers[i].each = each;
        each->results[i].status = ask_worker(&each->answers[i], tram_runtime_loop(runtime, i), work);
    }
    if (--each->left == 0) {
        tram__future_finish(&each->future, each->results);
        tram__future_drop(&each->future);
    }
    return 0;
}
