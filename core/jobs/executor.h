/*
 * Jobs: blocking work on a pool of threads, from the inside.
 *
 * A job is an object that begins with a struct job. It is held by the pool until its work is done, by the loop until
 * it knows that, and by the future that stands for it, so that a result may lie in the job. Who lets go last frees
 * it, on whatever thread.
 *
 * A pool answers by a mail node that the job brought along. A loop may be closed and freed while a job runs: the job
 * then finds its reply port shut and is dropped in silence. Hence a job's memory is the default one, not the loop's.
 */
#ifndef TRAM_CORE_JOBS_EXECUTOR_H
#define TRAM_CORE_JOBS_EXECUTOR_H

#include "core/jobs/future.h"
#include "core/system/threads.h"

struct job;

struct job_kind {
    const char *name; /* for errors: the operation */
    bool lookup;      /* as in struct task */
    /* On a thread of the pool: does the work. */
    void (*run)(struct job *job);
    /* On the loop: completes the future with what the job brought. */
    void (*complete)(struct job *job, tram_future *future);
    /* Any thread, last of all: frees what hangs on the job. job->task.started tells whether it ever ran. */
    void (*destroy)(struct job *job);
};

struct job {
    struct task task;
    const struct job_kind *kind;
    struct list link;              /* loop's thread only: in executor_link.jobs until it is answered */
    struct job_future *future;     /* loop's thread only; NULL: nobody waits any more */
    tram_executor *executor;       /* counted */
    struct reply_port *reply_port; /* counted */
    struct mail *mail;             /* guarded by the lock of `reply_port`; NULL once posted */
    size_t size;
    _Atomic uint32_t references;
    bool on_default;
    bool result_taken; /* by a reader of the future */
};

/* A zeroed object of `size` bytes that begins with a job, for this loop. -ENOMEM. */
int tram__job_new(tram_loop *loop, const struct job_kind *kind, size_t size, void *ret_job);

/* Gives back a job that was not submitted, without calling `destroy`. */
void tram__job_free(struct job *job);

/*
 * Hands the job over to `executor` (NULL: the loop's default) and makes its future, which the caller
 * releases; `ret_future` may be NULL. On failure (TRAM_ESTATE, TRAM_ELIMIT, -ENOMEM, -EAGAIN) the job is still the
 * caller's.
 */
int tram__job_submit(tram_loop *loop, tram_executor *executor, struct job *job, tram_future **ret_future);

#endif
