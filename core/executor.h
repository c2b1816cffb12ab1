/*
 * Jobs: blocking work on a pool of threads, from the inside.
 *
 * A job is an object that begins with a struct job, seen from two sides: by the future that waits for it, on
 * the loop's thread, and by the pool. Each holds it; who lets go last frees it, on whatever thread. The
 * future holds it as long as it lives, so a result may lie in the job.
 *
 * The pool answers by a mail cell that the job brought along. The mailbox outlives the loop: a job whose loop
 * was closed meanwhile is dropped in silence.
 */
#ifndef TRAM_CORE_EXECUTOR_H
#define TRAM_CORE_EXECUTOR_H

#include "core/future.h"
#include "core/threads.h"

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
    tram_executor *executor;   /* counted */
    struct mailbox *mailbox;   /* counted, until the mail is posted */
    struct mail *mail;         /* until it is posted */
    struct job_future *future; /* loop's thread only; NULL: nobody waits any more */
    tram_allocator allocator;
    size_t size;
    _Atomic uint32_t references;
    bool on_default;
};

/* A zeroed object of `size` bytes that begins with a job, for this loop. -ENOMEM. */
int tram__job_new(tram_loop *loop, const struct job_kind *kind, size_t size, void *ret_job);

/* Gives back a job that was not submitted, without calling `destroy`. */
void tram__job_free(struct job *job);

/*
 * Hands the job over to `executor` (NULL: the loop's default) and makes its future, which the caller
 * releases; `ret_future` may be NULL. On failure (TRAM_ESTATE, -ENOMEM, -EAGAIN) the job is still the
 * caller's.
 */
int tram__job_submit(tram_loop *loop, tram_executor *executor, struct job *job, tram_future **ret_future);

#endif
