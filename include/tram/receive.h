/*
 * Tasks that are actors: they receive messages by a call that waits, where an actor's struct has callbacks.
 *
 *     static int count(void *arg) {
 *         uint64_t sum = 0;
 *         tram_message *message;
 *         int status;
 *         while ((status = tram_task_receive(60000000000, &message)) == 0) {
 *             tram_request *request = tram_message_take_request(message);
 *             if (request)
 *                 tram_reply(request, &(tram_message){.words = {sum}});
 *             else
 *                 sum += message->words[0];
 *         }
 *         return status == TRAM_ETIMEOUT ? 0 : status; // nobody was interested for a minute, or it was cancelled
 *     }
 *
 * As an actor a task has an address, a bound for tram_try_post(), monitors, links, names, and may be a supervisor's
 * child. It hears of the end of a monitored one by a message (tram_ended_message). Its end is the actor's: with 0, or
 * the negative code that its function returned (TRAM_ECANCELLED where it was cancelled). The end of a link with a
 * reason other than 0, tram_actor_stop(), a supervisor and, in place of `closing`, the end of the runtime cancel the
 * task; who is interested hears of the end when the task has ended, with that reason.
 */
#ifndef TRAM_RECEIVE_H
#define TRAM_RECEIVE_H

#include <tram/actor.h>
#include <tram/task.h>

TRAM_BEGIN_DECLS

/*
 * The task as an actor, which it is from now on; `task` NULL: the running one. From here on messages to its address
 * (tram_actor_address()) wait for it, also before it begins. *ret_actor is the library's, and good until the task has
 * ended. Has a task been made only to be an actor, its reference may be released. The loop's thread.
 *
 * -ENOMEM; TRAM_ESTATE: it has ended, its actor was stopped, or NULL and none runs. tram_actor_set_timer() has nothing
 * to call: a task has tram_task_receive(), tram_sleep() and timeouts.
 */
TRAM_API int tram_task_actor(tram_task *task, tram_actor **ret_actor);

/*
 * The running task's next message. One that is there is returned at once, without a trip through the loop, in the order
 * in which they came; else the task waits for `timeout_ns`: TRAM_FOREVER; 0: not at all. A message that has come by the
 * time the task goes on is in time. A task that was none becomes an actor by this.
 *
 * *ret_message is the library's until the next call, or the end of the task: what it refers to is destroyed then unless
 * it was taken (tram_message_take()), and a request that was not taken (tram_message_take_request()) is answered with
 * -ENOTSUP. What the task has not received when it ends, or is stopped, is dropped by its type, and a request answered
 * with -ESRCH. Messages of tram_try_post() count for the bound until they are received.
 *
 * TRAM_ETIMEOUT; TRAM_ECANCELLED: the task was cancelled, and no message is lost by that, or its actor was stopped, and
 * none comes any more; -ENOMEM; TRAM_ESTATE: no task runs.
 */
TRAM_API int tram_task_receive(uint64_t timeout_ns, tram_message **ret_message);

/* The type of messages that tell a task of the end of an actor that it monitors: `bytes` begins with its tram_address,
 * and `tag` is the reason, as (int32_t)tag. */
TRAM_API extern const tram_message_type tram_ended_message;

TRAM_END_DECLS

#endif
