#include "core/jobs/executor.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "core/base/invalid.h"

/* The future of a job: holds it until it is freed. */
struct job_future {
    tram_future future;
    struct job *job;
};

struct shutdown {
    tram_future future;
    struct list link; /* in executor_link.shutdowns while it is pending */
    struct deadline deadline;
    uint64_t timeout_ns;
};

/* How pools reach a loop: counted by the loop and by its jobs, shut when the loop closes. */
struct reply_port {
    pthread_mutex_t lock;
    struct mailbox *mailbox; /* NULL: shut */
    struct mail *ended;      /* for the last thread of the own pool */
    _Atomic uint32_t references;
};

/* What a loop knows of executors. Made when the first job comes. */
struct executor_link {
    struct close_hook hook;
    tram_loop *loop;
    tram_executor *executor; /* the default one; counted */
    bool own;                /* made by this loop, and ended by it */
    bool shut_down;          /* no new job for the default executor */
    bool ended;              /* its threads have ended */
    size_t unanswered;       /* jobs on the default executor, detached ones included */
    struct list jobs;        /* all unanswered ones; each is held */
    struct list shutdowns;
    struct reply_port *reply_port;
};

/* ---- The reply port ---- */

static struct reply_port *reply_port_new(struct mailbox *mailbox) {
    struct reply_port *reply_port = tram__memory_get_zero(&tram__memory_default, sizeof *reply_port);
    if (!reply_port)
        return NULL;
    pthread_mutex_init(&reply_port->lock, NULL);
    reply_port->mailbox = mailbox;
    atomic_init(&reply_port->references, 1);
    return reply_port;
}

static struct reply_port *reply_port_hold(struct reply_port *reply_port) {
    atomic_fetch_add_explicit(&reply_port->references, 1, memory_order_relaxed);
    return reply_port;
}

static void reply_port_release(struct reply_port *reply_port) {
    if (atomic_fetch_sub_explicit(&reply_port->references, 1, memory_order_acq_rel) != 1)
        return;
    pthread_mutex_destroy(&reply_port->lock);
    memory_put(&tram__memory_default, reply_port, sizeof *reply_port);
}

/* Any thread: posts the mail that waits at `waiting`. False: the loop is closed. */
static bool reply_port_post(struct reply_port *reply_port, struct mail **waiting) {
    pthread_mutex_lock(&reply_port->lock);
    struct mailbox *mailbox = reply_port->mailbox;
    bool posted = false;
    if (mailbox) {
        struct mail *mail = *waiting;
        *waiting = NULL; /* once posted, what it waited in may be gone */
        /* The mailbox closes only after the reply port was shut, so it takes what comes. */
        posted = tram__mailbox_send(mailbox, mail) == 0;
    }
    pthread_mutex_unlock(&reply_port->lock);
    return posted;
}

/* ---- Jobs ---- */

static void job_mail_run(tram_loop *loop, struct mail *mail);
static void job_mail_discard(struct mail *mail);

static const struct mail_kind job_mail = {.run = job_mail_run, .discard = job_mail_discard};

void tram__job_free(struct job *job) {
    if (job->mail)
        tram__mail_free(job->reply_port->mailbox, job->mail);
    if (job->executor)
        tram__threads_release(job->executor);
    reply_port_release(job->reply_port);
    memory_put(&tram__memory_default, job, job->size);
}

static void job_release(struct job *job) {
    if (atomic_fetch_sub_explicit(&job->references, 1, memory_order_acq_rel) != 1)
        return;
    if (job->kind->destroy)
        job->kind->destroy(job);
    tram__job_free(job);
}

static struct job *mail_job(const struct mail *mail) {
    struct job *job;
    memcpy(&job, mail->payload, sizeof job);
    return job;
}

static void job_task_run(struct task *task) {
    struct job *job = (struct job *)task;
    job->kind->run(job);
}

static void job_task_done(struct task *task) {
    struct job *job = (struct job *)task;
    /* Once posted, the job is the loop's and may be gone, and the loop with it. */
    struct reply_port *reply_port = reply_port_hold(job->reply_port);
    if (!reply_port_post(reply_port, &job->mail))
        job_release(job);
    reply_port_release(reply_port);
}

static void link_ending(struct close_hook *hook, enum shutdown_mode ending);

static int link_open(tram_loop *loop, struct executor_link **ret_link) {
    struct executor_link *link = loop->executor;
    if (!link) {
        link = tram__memory_get_zero(&loop->allocator, sizeof *link);
        if (!link)
            return -ENOMEM;
        link->reply_port = reply_port_new(loop->mailbox);
        if (!link->reply_port) {
            memory_put(&loop->allocator, link, sizeof *link);
            return -ENOMEM;
        }
        list_init(&link->jobs);
        list_init(&link->shutdowns);
        link->loop = loop;
        loop->executor = link;
        loop_add_close_hook(loop, &link->hook, link_ending);
    }
    *ret_link = link;
    return 0;
}

int tram__job_new(tram_loop *loop, const struct job_kind *kind, size_t size, void *ret_job) {
    struct executor_link *link;
    int status = link_open(loop, &link);
    if (status)
        return status;
    struct job *job = tram__memory_get_zero(&tram__memory_default, size);
    if (!job)
        return -ENOMEM;
    job->mail = tram__mail_new(loop->mailbox, &job_mail);
    if (!job->mail) {
        memory_put(&tram__memory_default, job, size);
        return -ENOMEM;
    }
    memcpy(job->mail->payload, &job, sizeof job);
    job->task = (struct task){.lookup = kind->lookup, .run = job_task_run, .done = job_task_done};
    list_init(&job->task.link);
    list_init(&job->link);
    job->kind = kind;
    job->reply_port = reply_port_hold(link->reply_port);
    job->size = size;
    memcpy(ret_job, &job, sizeof job);
    return 0;
}

/* ---- The loop's side ---- */

static int default_executor(struct executor_link *link, tram_executor **ret_executor) {
    if (link->shut_down)
        return TRAM_ESTATE;
    if (!link->executor && link->loop->shared_executor) {
        link->executor = tram__threads_hold(link->loop->shared_executor);
    } else if (!link->executor) {
        int status = tram__threads_new(0, NULL, &link->executor);
        if (status)
            return status;
        link->own = true;
    }
    *ret_executor = link->executor;
    return 0;
}

static void shutdown_finish(struct shutdown *shutdown, bool cancelled) {
    list_remove(&shutdown->link);
    deadline_cancel(shutdown->future.loop, &shutdown->deadline);
    if (cancelled)
        tram__future_finish_cancelled(&shutdown->future);
    else
        tram__future_finish(&shutdown->future, NULL);
    tram__future_drop(&shutdown->future);
}

static void shutdown_finish_all(struct executor_link *link, bool cancelled) {
    while (!list_empty(&link->shutdowns))
        shutdown_finish(container_of(link->shutdowns.next, struct shutdown, link), cancelled);
}

/* The pool is done with the job, which it may have begun or not: its hold and the loop's end. */
static void job_answered(tram_loop *loop, struct job *job) {
    struct executor_link *link = loop->executor;
    list_remove(&job->link);
    if (job->on_default && --link->unanswered == 0 && !link->own)
        shutdown_finish_all(link, false);
    job_release(job);
    job_release(job);
}

static void job_mail_run(tram_loop *loop, struct mail *mail) {
    struct job *job = mail_job(mail);
    struct job_future *waiting = job->future;
    if (waiting) {
        job->future = NULL;
        job->kind->complete(job, &waiting->future);
        tram__future_drop(&waiting->future);
    }
    job_answered(loop, job);
}

/* The loop closes, and let go of the job already. */
static void job_mail_discard(struct mail *mail) {
    job_release(mail_job(mail));
}

/* Takes the job back if no thread began it, else lets it run on unwatched. The future ends as cancelled. */
static void job_future_detach(tram_future *future) {
    struct job_future *waiting = (struct job_future *)future;
    struct job *job = waiting->job;
    waiting->job = NULL;
    job->future = NULL;
    tram__future_finish_cancelled(future);
    if (tram__threads_withdraw(job->executor, &job->task))
        job_answered(future->loop, job);
    job_release(job);
    tram__future_drop(future);
}

static void job_future_destroy(tram_future *future) {
    struct job *job = ((struct job_future *)future)->job;
    if (!job)
        return;
    job->result_taken = future->retrieved;
    job_release(job);
}

static const struct future_kind job_future_kind = {
    .name = "job",
    .cancel = job_future_detach,
    .destroy = job_future_destroy,
};

int tram__job_submit(tram_loop *loop, tram_executor *executor, struct job *job, tram_future **ret_future) {
    struct executor_link *link = loop->executor;
    int status = 0;
    job->on_default = !executor;
    if (!executor)
        status = default_executor(link, &executor);
    struct job_future *waiting;
    if (!status)
        status = tram__future_new(loop, &job_future_kind, sizeof *waiting, &waiting);
    if (status)
        return status;
    waiting->job = job;
    job->future = waiting;
    job->executor = tram__threads_hold(executor);
    atomic_init(&job->references, 3); /* the pool's, the loop's, the future's */
    list_append(&link->jobs, &job->link);
    status = tram__threads_submit(executor, &job->task);
    if (status) {
        list_remove(&job->link);
        job->executor = NULL;
        tram__threads_release(executor);
        waiting->job = NULL;
        tram__future_drop(&waiting->future);
        return status;
    }
    link->unanswered += job->on_default;
    /* The reference that the future was made with is its own while it is pending. */
    if (ret_future)
        *ret_future = tram__future_hold(&waiting->future);
    return 0;
}

/* Shuts the reply port and takes from the jobs that still run what is the loop's. */
static void link_forget_jobs(tram_loop *loop, struct executor_link *link) {
    struct reply_port *reply_port = link->reply_port;
    pthread_mutex_lock(&reply_port->lock);
    reply_port->mailbox = NULL;
    pthread_mutex_unlock(&reply_port->lock);
    if (reply_port->ended)
        tram__mail_free(loop->mailbox, reply_port->ended);
    reply_port->ended = NULL;
    while (!list_empty(&link->jobs)) {
        struct job *job = container_of(link->jobs.next, struct job, link);
        list_remove(&job->link);
        if (job->mail)
            tram__mail_free(loop->mailbox, job->mail);
        job->mail = NULL;
        job_release(job);
    }
    reply_port_release(reply_port);
}

/* The loop closes: never waits for a job (L-34). */
static void link_ending(struct close_hook *hook, enum shutdown_mode ending) {
    if (ending != IO_SHUTDOWN_NOW)
        return;
    struct executor_link *link = container_of(hook, struct executor_link, hook);
    tram_loop *loop = link->loop;
    list_remove(&hook->link);
    /* A discard of the user's may cancel other jobs: none is ahead of us in a list that changes. */
    struct list rest;
    list_init(&rest);
    while (!list_empty(&link->jobs)) {
        struct job *job = container_of(link->jobs.next, struct job, link);
        list_remove(&job->link);
        list_append(&rest, &job->link);
        if (job->future)
            job_future_detach(&job->future->future);
    }
    list_move_all(&rest, &link->jobs);
    link_forget_jobs(loop, link);
    shutdown_finish_all(link, true);
    if (link->own)
        tram__threads_abandon(link->executor);
    if (link->executor)
        tram__threads_release(link->executor);
    memory_put(&loop->allocator, link, sizeof *link);
    loop->executor = NULL;
}

/* ---- run_in_executor ---- */

struct user_job {
    struct job job;
    tram_executor_function function;
    void *arg;
    tram_discard discard;
    tram_discard free_result;
    void *result;
    int code;
};

static void user_job_run(struct job *job) {
    struct user_job *user = (struct user_job *)job;
    user->code = user->function(user->arg, &user->result);
}

static void user_job_complete(struct job *job, tram_future *future) {
    const struct user_job *user = (struct user_job *)job;
    if (user->code < 0)
        tram__future_fail_code(future, user->code, job->kind->name);
    else
        tram__future_finish(future, user->result);
}

static void user_job_destroy(struct job *job) {
    const struct user_job *user = (struct user_job *)job;
    if (!job->task.started && user->discard)
        user->discard(user->arg);
    if (user->result && user->free_result && !job->result_taken)
        user->free_result(user->result);
}

static const struct job_kind user_job_kind = {
    .name = "run_in_executor",
    .run = user_job_run,
    .complete = user_job_complete,
    .destroy = user_job_destroy,
};

int tram_loop_run_in_executor(tram_loop *loop, tram_executor *executor, tram_executor_function function, void *arg,
                              tram_discard discard, tram_future **ret_future) {
    const tram_job job = {.function = function, .arg = arg, .discard = discard};
    return tram_loop_run_job(loop, executor, &job, ret_future);
}

int tram_loop_run_job(tram_loop *loop, tram_executor *executor, const tram_job *work, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!work || !work->function)
        return tram__invalid(work ? "function" : "job");
    if (reserved_used(work))
        return tram__invalid("reserved");
    if (executor && tram__threads_forked(executor))
        return -ECHILD;
    struct user_job *user;
    status = tram__job_new(loop, &user_job_kind, sizeof *user, &user);
    if (status)
        return status;
    user->function = work->function;
    user->arg = work->arg;
    user->discard = work->discard;
    user->free_result = work->free_result;
    status = tram__job_submit(loop, executor, &user->job, ret_future);
    if (status)
        tram__job_free(&user->job);
    return status;
}

/* ---- Executors ---- */

int tram_executor_new(unsigned max_threads, const char *name, tram_executor **ret_executor) {
    return tram__threads_new(max_threads, name, ret_executor);
}

void tram_executor_free(tram_executor *executor) {
    if (!executor || tram__threads_forked(executor))
        return; /* in a child it has no thread, and maybe a lock that one of them held */
    tram__threads_join(executor);
    tram__threads_release(executor);
}

int tram_executor_set_limit(tram_executor *executor, size_t waiting) {
    if (!executor)
        return tram__invalid("executor");
    if (tram__threads_forked(executor))
        return -ECHILD;
    tram__threads_limit(executor, waiting);
    return 0;
}

int tram_loop_set_default_executor(tram_loop *loop, tram_executor *executor) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    if (!executor)
        return tram__invalid("executor");
    if (tram__threads_forked(executor))
        return -ECHILD;
    struct executor_link *link;
    status = link_open(loop, &link);
    if (status)
        return status;
    if (link->shut_down)
        return TRAM_ESTATE;
    /* What the pool used so far has to do, it does. */
    if (link->own)
        tram__threads_abandon(link->executor);
    if (link->executor)
        tram__threads_release(link->executor);
    link->executor = tram__threads_hold(executor);
    link->own = false;
    return 0;
}

/* ---- shutdown_default_executor ---- */

static void ended_mail_run(tram_loop *loop, struct mail *mail) {
    (void)mail;
    struct executor_link *link = loop->executor;
    link->ended = true;
    tram__threads_join(link->executor); /* the last thread posted this on its way out: no waiting */
    shutdown_finish_all(link, false);
}

static void ended_post(void *arg) {
    struct reply_port *reply_port = arg;
    reply_port_post(reply_port, &reply_port->ended);
    reply_port_release(reply_port);
}

static void ended_mail_discard(struct mail *mail) {
    (void)mail;
}

static const struct mail_kind ended_mail = {.run = ended_mail_run, .discard = ended_mail_discard};

static void shutdown_expire(tram_loop *loop, struct deadline *deadline) {
    struct shutdown *shutdown = container_of(deadline, struct shutdown, deadline);
    tram__log(loop, TRAM_LOG_WARNING, "The executor did not end its threads within %.3f seconds",
              (double)shutdown->timeout_ns / 1e9);
    shutdown_finish(shutdown, false);
}

static void shutdown_cancel(tram_future *future) {
    shutdown_finish((struct shutdown *)future, true);
}

static const struct future_kind shutdown_kind = {
    .name = "shutdown_default_executor",
    .cancel = shutdown_cancel,
};

/* Closes the default executor to new jobs of this loop. False in *ret_waits: it has come to rest already. */
static int shutdown_begin(tram_loop *loop, struct executor_link *link, bool *ret_waits) {
    if (!link->own) {
        /* A caller's pool goes on, for others: it is this loop's jobs that are waited for. */
        link->shut_down = true;
        *ret_waits = link->unanswered > 0;
        return 0;
    }
    if (link->shut_down) {
        *ret_waits = !link->ended;
        return 0;
    }
    struct reply_port *reply_port = link->reply_port;
    reply_port->ended = tram__mail_new(loop->mailbox, &ended_mail);
    if (!reply_port->ended)
        return -ENOMEM;
    link->shut_down = true;
    *ret_waits = tram__threads_close(link->executor, ended_post, reply_port_hold(reply_port));
    if (!*ret_waits) {
        tram__mail_free(loop->mailbox, reply_port->ended);
        reply_port->ended = NULL;
        reply_port_release(reply_port);
        link->ended = true;
    }
    return 0;
}

int tram_loop_shutdown_default_executor(tram_loop *loop, uint64_t timeout_ns, tram_future **ret_future) {
    int status = loop_enter_open(loop, __func__);
    if (status)
        return status;
    struct executor_link *link;
    status = link_open(loop, &link);
    if (status)
        return status;
    struct shutdown *shutdown;
    status = tram__future_new(loop, &shutdown_kind, sizeof *shutdown, &shutdown);
    if (status)
        return status;
    list_init(&shutdown->link);
    shutdown->deadline.expire = shutdown_expire;
    shutdown->timeout_ns = timeout_ns;
    if (timeout_ns)
        status = tram__deadline_start_after(loop, &shutdown->deadline, timeout_ns);
    bool waits = false;
    if (!status)
        status = shutdown_begin(loop, link, &waits);
    if (status) {
        deadline_cancel(loop, &shutdown->deadline);
        tram__future_drop(&shutdown->future);
        return status;
    }
    if (ret_future)
        *ret_future = tram__future_hold(&shutdown->future);
    list_append(&link->shutdowns, &shutdown->link);
    if (!waits)
        shutdown_finish(shutdown, false);
    return 0;
}
