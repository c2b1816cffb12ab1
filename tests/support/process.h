/* A subprocess protocol that writes down what happens, and ways to start children with it. */
#ifndef TRAM_TESTS_PROCESS_H
#define TRAM_TESTS_PROCESS_H

#include "support/support.h"

#include <sys/types.h>

/*
 * Each callback adds a word to the trace: made, data:FD, lost:FD:ERROR, exited:CODE, lost:ERROR, pause, resume,
 * released. `data` is traced once for each run of pieces of one descriptor, since how bytes are cut is arbitrary.
 */
struct process {
    tram_protocol base;
    struct world *world;
    tram_transport *transport; /* held by a test that wants to */
    char bytes[3][65536];      /* what came, as text */
    size_t received[3];
    int last_fd; /* whose data was traced last; 0: something else was */
    bool lost_pipe[3];
    bool exited;
    bool lost;
    bool was_released;
    int returncode;
    int (*on)(struct process *process, const char *event);
    void *arg;
};

/* Freed by process_free(), after its `released`. */
struct process *process_new(struct world *world);
void process_free(struct process *process);

/* A factory; arg is the child. */
int process_factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol);

/* Starts it, and adds "creator:RESULT" to the trace when the creator goes on; the future is released by itself. */
void process_exec(struct process *process, const char *const *argv, const tram_subprocess_options *options);
void process_shell(struct process *process, const char *command, const tram_subprocess_options *options);

/* Runs the loop until connection_lost; the trace stays. */
void process_wait(struct process *process);

/* Has this process no child of that pid, be it dead or alive? */
bool no_such_child(pid_t pid);

/* Has this process no child at all? */
bool no_children(void);

#endif
