/*
 * A protocol of decimal integers, one a line: the client sends n, the server answers n + 1, the client closes.
 *
 * It says nothing of where the bytes go: number-server.c and number-client.c let it talk over a Unix socket, and it
 * does so unchanged over any other stream.
 */
#ifndef NUMBERS_H
#define NUMBERS_H

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tram.h>

/* A whole text as a number: 0 or TRAM_EVALUE. */
static inline int number_read(const char *text, int64_t *ret_number) {
    char *end;
    errno = 0;
    *ret_number = strtoll(text, &end, 10);
    return *text && !*end && !errno ? 0 : TRAM_EVALUE;
}

/* A line on its way in: bytes may come in pieces of any size. */
struct number_line {
    char text[24];
    size_t size;
};

/* Takes one byte. 1: a line is complete, and *ret_number its number; 0: not yet; or a negative code. */
static inline int number_line_add(struct number_line *line, char byte, int64_t *ret_number) {
    if (byte != '\n') {
        if (line->size == sizeof line->text - 1)
            return TRAM_ELIMIT;
        line->text[line->size++] = byte;
        return 0;
    }
    line->text[line->size] = '\0';
    bool whole = strlen(line->text) == line->size;
    line->size = 0;
    return whole && number_read(line->text, ret_number) == 0 ? 1 : TRAM_EVALUE;
}

static inline int number_send(tram_transport *transport, int64_t number) {
    char text[24];
    int size = snprintf(text, sizeof text, "%" PRId64 "\n", number);
    return tram_transport_write(transport, text, (size_t)size);
}

/* ---- The server's side: a protocol for each connection ---- */

struct number_server {
    tram_protocol base; /* first */
    struct number_line line;
    unsigned answers;
};

static inline int number_server_received(tram_protocol *self, const void *data, size_t size) {
    struct number_server *server = (struct number_server *)self;
    for (size_t i = 0; i < size; i++) {
        int64_t number;
        int status = number_line_add(&server->line, ((const char *)data)[i], &number);
        if (status > 0 && number == INT64_MAX)
            status = TRAM_EVALUE;
        if (status > 0)
            status = number_send(self->transport, number + 1);
        else if (!status)
            continue;
        if (status < 0)
            return status; /* which ends the connection */
        server->answers++;
    }
    return 0;
}

static inline int number_server_lost(tram_protocol *self, const tram_error *error) {
    printf("answers: %u, end: %s\n", ((struct number_server *)self)->answers,
           error ? tram_error_text(error->code) : "clean");
    fflush(stdout);
    return 0;
}

static inline void number_server_released(tram_protocol *self) {
    free(self);
}

static inline int make_number_server(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {
        .data_received = number_server_received,
        .connection_lost = number_server_lost,
        .released = number_server_released,
    };
    (void)loop;
    (void)arg;
    struct number_server *server = (struct number_server *)calloc(1, sizeof *server);
    if (!server)
        return -ENOMEM;
    server->base.ops = &ops;
    *ret_protocol = &server->base;
    return 0;
}

/* ---- The client's side: `arg` of the factory is a struct number_client with its loop and number ---- */

struct number_client {
    tram_protocol base; /* first */
    tram_loop *loop;
    int64_t number; /* to send, and then what was answered */
    bool answered;
    struct number_line line;
};

static inline int number_client_made(tram_protocol *self, tram_transport *transport) {
    return number_send(transport, ((struct number_client *)self)->number);
}

static inline int number_client_received(tram_protocol *self, const void *data, size_t size) {
    struct number_client *client = (struct number_client *)self;
    for (size_t i = 0; i < size && !client->answered; i++) {
        int status = number_line_add(&client->line, ((const char *)data)[i], &client->number);
        if (status < 0)
            return status;
        client->answered = status > 0;
    }
    return client->answered ? tram_transport_close(self->transport) : 0;
}

static inline int number_client_lost(tram_protocol *self, const tram_error *error) {
    (void)error;
    return tram_loop_stop(((struct number_client *)self)->loop);
}

static inline int make_number_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {
        .connection_made = number_client_made,
        .data_received = number_client_received,
        .connection_lost = number_client_lost,
    };
    struct number_client *client = (struct number_client *)arg;
    client->base.ops = &ops;
    client->loop = loop;
    *ret_protocol = &client->base;
    return 0;
}

#endif
