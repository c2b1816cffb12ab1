/* Programs that are a task: asyncio.run. */
#ifndef TRAM_RUN_H
#define TRAM_RUN_H

#include <tram/runtime.h>
#include <tram/task.h>

TRAM_BEGIN_DECLS

/*
 * Runs `main(arg)` as the task "main" of a loop of its own, made with `options` (may be NULL), and returns what it
 * returned. When it has ended, all other tasks are cancelled and waited for (one that then fails is reported to the
 * exception handler), the default executor is shut down, and the loop is closed.
 *
 * If SIGINT has its default action, the first one cancels the main task meanwhile, and a second one ends the process;
 * a main task that ends so makes this return -EINTR.
 *
 * TRAM_ESTATE: a loop runs on this thread, or the main task stopped the loop without ending; -ENOMEM, -EMFILE.
 */
TRAM_API int tram_run(tram_task_function main, void *arg, const tram_loop_options *options);

/*
 * Starts the runtime, runs `main(arg)` as a task of its first worker beside all that the workers do, and stops the
 * runtime when the task has ended: as tram_runtime_run(), and returns what the task returned. Its servers and loops are
 * there when the task begins. If the runtime is stopped meanwhile, by a signal or a call, the main task is cancelled.
 * SIGINT is as in tram_run() unless the runtime handles signals itself.
 *
 * What tram_runtime_start() returned where that failed; -ENOMEM.
 */
TRAM_API int tram_runtime_run_task(tram_runtime *runtime, tram_task_function main, void *arg);

/*
 * What the main task of this thread's last tram_run() or tram_runtime_run_task() failed with, for
 * tram_error_describe(): it has the text that tram_loop_raise() or the call that failed gave. Without `causes`. NULL:
 * it did not fail, or was cancelled, or did not begin. Valid until the thread's next of these calls. Any thread.
 *
 *     int status = tram_run(fetch, "example.org", NULL);
 *     if (status < 0)
 *         fprintf(stderr, "fetch: %s\n", tram_error_describe(tram_run_error(), status));
 */
TRAM_API const tram_error *tram_run_error(void);

TRAM_END_DECLS

#endif
