/*
 * What tram's sides of the checks with others have in common: a peer that knows its loop and gathers a request of HTTP.
 */
#ifndef INTEROP_PEER_H
#define INTEROP_PEER_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

struct peer {
    tram_protocol base; /* first */
    tram_loop *loop;
    char request[4096];
    size_t size;
    int far_end;
    int status;
    bool wrong;
};

static inline struct peer *peer_of(tram_protocol *protocol) {
    return (struct peer *)(void *)protocol;
}

static inline void freed(tram_protocol *self) {
    free(self);
}

/* A factory of a server's peers; `arg` is what they do. */
static inline int make_peer(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    struct peer *peer = calloc(1, sizeof *peer);
    if (!peer)
        return TRAM_EUSER;
    peer->base.ops = arg;
    peer->loop = loop;
    *ret_protocol = &peer->base;
    return 0;
}

/* What is asked for, once the request is whole: 1; 0: it is not yet. */
static inline int request_target(tram_protocol *self, const void *data, size_t size, char target[1024]) {
    struct peer *peer = peer_of(self);
    if (size >= sizeof peer->request - peer->size)
        return TRAM_ELIMIT;
    memcpy(peer->request + peer->size, data, size);
    peer->size += size;
    if (!strstr(peer->request, "\r\n\r\n"))
        return 0;
    return sscanf(peer->request, "GET %1023s HTTP/1.", target) == 1 ? 1 : TRAM_EVALUE;
}

/* The answer, and the end of the connection. */
static inline int respond(tram_protocol *self, const char *body) {
    char answer[4096];
    int length =
        snprintf(answer, sizeof answer, "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s",
                 strlen(body), body);
    int status = tram_transport_write(self->transport, answer, (size_t)length);
    return status < 0 ? status : tram_transport_close(self->transport);
}

static inline int stop(tram_loop *loop, void *arg) {
    (void)arg;
    return tram_loop_stop(loop);
}

#endif
