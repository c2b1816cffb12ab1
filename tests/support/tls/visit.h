/* A client that visits a server on the same loop: a handshake, an echo and an end, whatever fails meanwhile. */
#ifndef TRAM_TESTS_SUPPORT_TLS_VISIT_H
#define TRAM_TESTS_SUPPORT_TLS_VISIT_H

#include "support/support.h"
#include "support/witness.h"

struct visit {
    struct witness_tally tally; /* set `end` and `size` */
    char where[128];            /* which it is, for messages */
    tram_loop *loop;
    tram_server *server;
};

/* Nothing may fail here. */
void visit_open(struct visit *visit, const tram_loop_options *options);

/* Fails the test where something waits for what will never come. */
void visit_play(struct visit *visit);

void visit_close(struct visit *visit);

#endif
