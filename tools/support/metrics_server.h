/*
 * GET /metrics over HTTP/1.1, from one worker of a runtime: what a Prometheus server asks for.
 *
 * One request for each connection, which is closed after the answer. A request has 8 KiB and a connection 10 seconds;
 * 64 connections are served at once. Who wants more is cut off.
 */
#ifndef TRAM_TOOLS_METRICS_SERVER_H
#define TRAM_TOOLS_METRICS_SERVER_H

#include <tram/tram.h>

#define METRICS_HEAD_LIMIT  8192u
#define METRICS_DEADLINE_NS 10000000000ull
#define METRICS_CLIENTS     64u

typedef struct metrics_server {
    /* set before metrics_server_start(), and left alone while the runtime lives */
    const tram_metrics_source *sources;
    size_t source_count;
    uint64_t deadline_ns; /* of a connection; 0: METRICS_DEADLINE_NS */
    const int *sockets;   /* that listen already, instead of host and port; NULL: none do */
    size_t socket_count;
    /* of the worker's thread */
    unsigned clients;
} metrics_server;

/* Serves on worker 0 of a runtime until that stops. Codes and `ret_error` as of tram_runtime_create_server(). */
int metrics_server_start(metrics_server *server, tram_runtime *runtime, const char *host, const char *port,
                         tram_runtime_server **ret_listener, tram_error *ret_error);

#endif
