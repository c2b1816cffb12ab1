/* tram_run and tram_runtime_run_task: a main task, and the orderly end when it has ended. */
#include <errno.h>
#include <signal.h>

#include "core/base/invalid.h"
#include "core/tasks/task.h"
#include <tram/executor.h>
#include <tram/run.h>
#include <tram/signal.h>
#include <tram/wait.h>

/* ---- What the main task failed with ---- */

static struct kept_error *last_error(void) {
    static _Thread_local struct kept_error kept; /* code 0: nothing */
    return &kept;
}

static void keep_error(struct kept_error *kept, const tram_error *error) {
    kept->error.code = 0;
    if (!error)
        return;
    tram__error_keep(kept, error);
    kept->error.causes = NULL; /* the future's */
    kept->error.cause_count = 0;
}

const tram_error *tram_run_error(void) {
    const tram_error *error = &last_error()->error;
    return error->code ? error : NULL;
}

/* ---- SIGINT ---- */

struct interrupt {
    tram_task *main;
    bool catches; /* SIGINT is ours */
    bool came;
};

/* The next one takes the default action. */
static int interrupted(tram_loop *loop, void *arg) {
    struct interrupt *interrupt = arg;
    interrupt->catches = false;
    interrupt->came = true;
    tram_loop_remove_signal_handler(loop, SIGINT);
    tram_task_cancel(interrupt->main);
    return 0;
}

static bool has_default_action(int number) {
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 && !(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_DFL;
}

static int catch_interrupt(tram_loop *loop, struct interrupt *interrupt) {
    if (!has_default_action(SIGINT))
        return 0;
    int status = tram_loop_add_signal_handler(loop, SIGINT, interrupted, interrupt);
    interrupt->catches = !status;
    return status;
}

static void release_interrupt(tram_loop *loop, struct interrupt *interrupt) {
    if (interrupt->catches)
        tram_loop_remove_signal_handler(loop, SIGINT);
}

/* What the main task returned; -EINTR if it is the interrupt that ended it. */
static int outcome(const struct interrupt *interrupt) {
    int status = tram_task_result(interrupt->main);
    bool by_interrupt = interrupt->came && status == TRAM_ECANCELLED && tram_task_uncancel(interrupt->main) == 0;
    return by_interrupt ? -EINTR : status;
}

/* ---- tram_run ---- */

static void report_late_failure(tram_loop *loop, tram_task *task) {
    const tram_error *error = tram_future_error(&task->future);
    if (!error)
        return;
    tram_exception exception = {
        .message = "A task failed while tram_run() ended", .error = error, .future = &task->future, .fd = -1};
    tram__report(loop, &exception);
}

static size_t count_tasks(const struct task_loop *tasks) {
    size_t count = 0;
    for (const struct list *link = tasks->all.next; link != &tasks->all; link = link->next)
        count++;
    return count;
}

/* Cancels those that there are now and waits for them, as far as they end. */
static int cancel_and_wait(tram_loop *loop, tram_future **futures, size_t count) {
    for (size_t i = 0; i < count; i++)
        tram_future_cancel(futures[i]);
    tram_future *all;
    int status = tram_gather(loop, futures, count, TRAM_GATHER_ERRORS, &all);
    if (status)
        return status;
    status = tram_loop_run_until_complete(loop, all);
    tram_future_release(all);
    for (size_t i = 0; i < count; i++)
        report_late_failure(loop, task_of(futures[i]));
    return status;
}

static int cancel_the_rest(tram_loop *loop) {
    struct task_loop *tasks = task_loop_present(loop);
    size_t count = tasks ? count_tasks(tasks) : 0, i = 0;
    if (count == 0)
        return 0;
    tram_future **futures = memory_get(&loop->allocator, count * sizeof *futures);
    if (!futures)
        return -ENOMEM;
    for (struct list *link = tasks->all.next; link != &tasks->all; link = link->next)
        futures[i++] = tram__future_hold(&container_of(link, tram_task, link)->future);
    int status = cancel_and_wait(loop, futures, count);
    for (i = 0; i < count; i++)
        tram__future_drop(futures[i]);
    memory_put(&loop->allocator, futures, count * sizeof *futures);
    return status;
}

static int end_executor(tram_loop *loop) {
    tram_future *ended;
    if (!loop->executor)
        return 0;
    int status = tram_loop_shutdown_default_executor(loop, 0, &ended);
    if (status)
        return status;
    status = tram_loop_run_until_complete(loop, ended);
    tram_future_release(ended);
    return status;
}

static int run_main(tram_loop *loop, struct interrupt *interrupt) {
    int status = catch_interrupt(loop, interrupt);
    if (status)
        return status;
    (void)tram_loop_run_until_complete(loop, &interrupt->main->future);
    int rest = cancel_the_rest(loop);
    int executor = end_executor(loop);
    release_interrupt(loop, interrupt);
    status = outcome(interrupt); /* TRAM_ESTATE: the loop was stopped before */
    keep_error(last_error(), tram_future_error(&interrupt->main->future));
    if (status < 0)
        return status;
    return rest ? rest : executor ? executor : status;
}

int tram_run(tram_task_function main, void *arg, const tram_loop_options *options) {
    keep_error(last_error(), NULL);
    if (tram_loop_running())
        return TRAM_ESTATE;
    tram_loop *loop;
    int status = tram_loop_new(options, &loop);
    if (status)
        return status;
    struct interrupt interrupt = {.main = NULL};
    status = tram_task_spawn(loop, main, arg, &(tram_task_options){.name = "main"}, &interrupt.main);
    if (!status) {
        status = run_main(loop, &interrupt);
        tram_loop_close(loop);
        tram_task_release(interrupt.main);
    }
    tram_loop_free(loop);
    return status;
}

/* ---- tram_runtime_run_task ---- */

struct runtime_main {
    tram_runtime *runtime;
    tram_task_function function;
    void *arg;
    struct interrupt interrupt;
    struct close_hook hook; /* of the first worker's loop */
    int status;
    struct kept_error error;
};

static int main_ended(tram_future *future, void *arg) {
    struct runtime_main *self = arg;
    list_remove(&self->hook.link);
    release_interrupt(future->loop, &self->interrupt);
    self->status = outcome(&self->interrupt);
    keep_error(&self->error, tram_future_error(future));
    tram_task_release(self->interrupt.main);
    self->interrupt.main = NULL;
    return tram_runtime_stop(self->runtime);
}

/* The runtime stops. */
static void worker_ends(struct close_hook *hook, enum shutdown_mode mode) {
    struct runtime_main *self = container_of(hook, struct runtime_main, hook);
    if (mode == IO_SHUTDOWN_STOP)
        tram_task_cancel(self->interrupt.main);
    if (mode != IO_SHUTDOWN_NOW)
        return;
    list_remove(&hook->link);
    tram_task_release(self->interrupt.main);
    self->status = TRAM_ECANCELLED;
}

static int begin_main(tram_loop *loop, void *arg) {
    struct runtime_main *self = arg;
    const tram_task_options options = {.name = "main"};
    tram_task **task = &self->interrupt.main;
    self->status = tram_task_spawn(loop, self->function, self->arg, &options, task);
    if (self->status) {
        tram_runtime_stop(self->runtime);
        return 0;
    }
    (void)tram_future_add_done_callback(&(*task)->future, main_ended, self); /* the first: it needs no memory */
    loop_add_close_hook(loop, &self->hook, worker_ends);
    return catch_interrupt(loop, &self->interrupt);
}

int tram_runtime_run_task(tram_runtime *runtime, tram_task_function main, void *arg) {
    if (!main)
        return tram__invalid("main");
    struct runtime_main self = {.runtime = runtime, .function = main, .arg = arg, .status = TRAM_ECANCELLED};
    keep_error(last_error(), NULL);
    int status = tram_runtime_start(runtime);
    if (status)
        return status;
    status = tram_loop_call_soon_threadsafe(tram_runtime_loop(runtime, 0), begin_main, &self, NULL);
    if (status) {
        self.status = status;
        tram_runtime_stop(runtime);
    }
    tram_runtime_join(runtime);
    keep_error(last_error(), self.error.error.code ? &self.error.error : NULL);
    return self.status;
}
