/*
 * Groups of tasks (asyncio.TaskGroup): no task of a group outlives it, and the first that fails ends the others.
 *
 *     tram_group *group;
 *     int status = tram_group_begin(&group);
 *     if (status)
 *         return status;
 *     status = tram_group_spawn(group, fetch, &first, NULL, NULL);
 *     if (!status)
 *         status = tram_group_spawn(group, fetch, &second, NULL, NULL);
 *     return tram_group_end(group, status);
 *
 * When a task of the group fails, all others are cancelled, and so is the task that began the group: what it waits in
 * returns TRAM_ECANCELLED, it goes to tram_group_end(), and that returns the failure. When the task that began the
 * group is cancelled, or fails, all tasks of the group are cancelled. Groups nest, and nest with timeouts; one that is
 * still open when the task's function returns is ended there.
 */
#ifndef TRAM_GROUP_H
#define TRAM_GROUP_H

#include <tram/task.h>

TRAM_BEGIN_DECLS

typedef struct tram_group tram_group;

/* Begins it for the running task. TRAM_ESTATE: none runs; -ENOMEM. */
TRAM_API int tram_group_begin(tram_group **ret_group);

/*
 * As tram_task_spawn(), for a task of the group: from the task that began it, or one of its tasks. TRAM_ESTATE also:
 * the group is ending, and has no task left or cancels those that it has. Failures of its tasks count as looked at.
 */
TRAM_API int tram_group_spawn(tram_group *group, tram_task_function function, void *arg,
                              const tram_task_options *options, tram_task **ret_task);

/*
 * Waits until all tasks of the group have ended, and frees it. `status`: how what the task did in the group ended; a
 * negative one cancels the group's tasks. Returns
 *  - `status` if no task failed, and the task was not cancelled meanwhile;
 *  - the code of the failure if there was one, of a task or `status` itself (differs from asyncio, which raises a group
 *    of one exception). tram_task_join() of the failed task gives the same;
 *  - TRAM_EMULTIPLE for several failures. What tram_loop_raise() would keep then names them;
 *  - TRAM_ECANCELLED if the task was cancelled from outside and nothing failed.
 * TRAM_ESTATE: it is not the innermost scope of the running task, and was not ended.
 */
TRAM_API int tram_group_end(tram_group *group, int status);

TRAM_END_DECLS

#endif
