/*
 * Processes for tasks (asyncio.create_subprocess_exec, asyncio.subprocess.Process): a subprocess (tram/subprocess.h)
 * whose pipes are streams.
 *
 *     static int sort(void *arg) {
 *         static const char *const argv[] = {"sort", NULL};
 *         tram_subprocess_options options = {.error.kind = TRAM_STDIO_INHERIT};
 *         tram_process *process;
 *         tram_bytes output;
 *         int status = tram_create_subprocess_exec(argv, &options, 0, &process);
 *         if (status)
 *             return status;
 *         status = tram_process_communicate(process, arg, strlen(arg), &output, NULL);
 *         if (!status)
 *             printf("%.*s", (int)output.size, output.data);
 *         tram_process_free(process);
 *         return status;
 *     }
 *
 * All calls are for the loop's thread; those that wait are for tasks, and TRAM_ESTATE elsewhere. A task that is
 * cancelled in one gets TRAM_ECANCELLED, and nothing is lost: the child runs on, and the same can be waited for again.
 */
#ifndef TRAM_PROCESS_H
#define TRAM_PROCESS_H

#include <tram/streams.h>
#include <tram/subprocess.h>

TRAM_BEGIN_DECLS

typedef struct tram_process tram_process;

/*
 * Starts a program and waits until it runs: tram_loop_subprocess_exec(), which tells the options and the errors.
 * Without options (NULL) the child has this process's input, output and error; in options that are given, zero is a
 * pipe as there (differs from asyncio). `limit` is that of the readers; 0: 64 KiB. The process is the caller's to free.
 * TRAM_EVALUE also for options with a discard. A task that is cancelled meanwhile leaves no child.
 */
TRAM_API int tram_create_subprocess_exec(const char *const *argv, const tram_subprocess_options *options, size_t limit,
                                         tram_process **ret_process);

/* The same for a command line, run by /bin/sh -c (asyncio.create_subprocess_shell). */
TRAM_API int tram_create_subprocess_shell(const char *command, const tram_subprocess_options *options, size_t limit,
                                          tram_process **ret_process);

/*
 * Closes the pipes, kills the child if it runs, and frees the process and its streams; no task may wait in any of them.
 * NULL is allowed.
 */
TRAM_API void tram_process_free(tram_process *process);

/* The stream of each pipe (Process.stdin, stdout, stderr), valid as long as the process; NULL: no pipe. A child whose
 * input is not closed may wait for more for ever. */
TRAM_API tram_stream_writer *tram_process_stdin(tram_process *process);
TRAM_API tram_stream_reader *tram_process_stdout(tram_process *process);
TRAM_API tram_stream_reader *tram_process_stderr(tram_process *process);

/*
 * The subprocess's transport, for tram_transport_get_pid(), tram_transport_send_signal() and so on, valid as long as
 * the process; NULL: the loop was closed.
 */
TRAM_API tram_transport *tram_process_transport(tram_process *process);

/*
 * Waits until the child has exited, whether its pipes are open or not, and says how: its exit status, or -n if signal n
 * ended it (Process.wait). A child whose output nobody reads may never exit. `ret_returncode` may be NULL.
 */
TRAM_API int tram_process_wait(tram_process *process, int *ret_returncode);

/*
 * Sends `input` (copied) and ends the child's input, reads output and error to their ends at the same time, however
 * long they are, and waits for the exit (Process.communicate). That the child did not want all of the input is no
 * error. What is no pipe has no output: an empty view. The views are valid as the readers' are: until the next read, or
 * until the process is freed; `ret_output` and `ret_error` may be NULL. After a cancellation call it again without
 * input: what had come is still there.
 *
 * TRAM_EVALUE: an input, but no pipe for it; -ENOMEM.
 */
TRAM_API int tram_process_communicate(tram_process *process, const void *input, size_t size, tram_bytes *ret_output,
                                      tram_bytes *ret_error);

TRAM_END_DECLS

#endif
