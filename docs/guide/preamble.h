/* What stands before the fragments of code in this guide. A block with an #include is a whole file and needs none. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tram/tram.h>

extern tram_loop *loop;
extern tram_runtime *runtime;
extern tram_runtime_server *sharded;
extern tram_server *server;
extern tram_transport *transport, *other;
extern tram_protocol *protocol;
extern tram_future *future;
extern tram_executor *executor;
extern void *value, *mine;
extern const void *data;
extern size_t size;
extern int fd, status;

int make_echo(tram_loop *loop, void *arg, tram_protocol **ret_protocol);
int on_timer(tram_loop *loop, void *arg);
int on_done(tram_future *future, void *arg);
int on_readable(tram_loop *loop, void *arg);
void free_arg(void *arg);
