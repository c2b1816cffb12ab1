/*
 * Which ports are open: as many as 500 tasks connect, each to the next port that nobody has tried.
 *
 *     port-scanner HOST FIRST LAST
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

#define TASKS 500

struct scan {
    const char *host;
    int next, last;
    bool open[65536];
};

/* 1: open, 0: not; a negative code where that cannot be told. */
static int probe(const char *host, int port) {
    const tram_connection_options options = {.timeout_ns = 2000000000}; /* 2 s */
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    char text[8];
    snprintf(text, sizeof text, "%d", port);
    int status = tram_open_connection(host, text, 0, &options, &reader, &writer);
    if (status == 0) {
        tram_stream_writer_close(writer);
        tram_stream_writer_release(writer);
        return 1;
    }
    return status == -ECONNREFUSED || status == TRAM_ETIMEOUT ? 0 : status;
}

static int scan_ports(void *arg) {
    struct scan *scan = (struct scan *)arg;
    while (scan->next <= scan->last) {
        int port = scan->next++; /* no lock: tasks of a loop take turns only where they wait */
        int status = probe(scan->host, port);
        if (status < 0)
            return status;
        scan->open[port] = status;
    }
    return 0;
}

/* A group ends when all of its tasks have; the first that fails ends the others. */
static int scan_all(void *arg) {
    tram_group *group;
    int status = tram_group_begin(&group);
    if (status < 0)
        return status;
    struct scan *scan = (struct scan *)arg;
    int ports = scan->last - scan->next + 1;
    for (int i = 0; i < TASKS && i < ports && status == 0; i++)
        status = tram_group_spawn(group, scan_ports, arg, NULL, NULL);
    return tram_group_end(group, status);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        puts("usage: port-scanner HOST FIRST LAST\nPrints the TCP ports from FIRST to LAST that are open.");
        return 0;
    }
    static struct scan scan;
    if (argc == 4) {
        scan.host = argv[1];
        scan.next = atoi(argv[2]);
        scan.last = atoi(argv[3]);
    }
    if (scan.next < 1 || scan.last > 65535) {
        fprintf(stderr, "usage: port-scanner HOST FIRST LAST\n");
        return 2;
    }
    int status = tram_run(scan_all, &scan, NULL);
    if (status < 0)
        fprintf(stderr, "port-scanner: %s\n", tram_error_text(status));
    for (int port = 1; port < 65536; port++)
        if (scan.open[port])
            printf("%d\n", port);
    return status < 0;
}
