#include "support/metrics_server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* What a client may send after its request, before it is cut off: closing at once would reset the connection under the
 * answer. */
#define REST_LIMIT (1024u * 1024u)

typedef struct metrics_client {
    tram_protocol base;
    metrics_server *server;
    tram_handle deadline;
    bool answered;
    size_t rest;
    size_t used;
    char head[METRICS_HEAD_LIMIT];
} metrics_client;

/* ---- The request ---- */

typedef struct request {
    const char *method;
    size_t method_size;
    const char *target;
    size_t target_size;
} request;

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_token(const char *text, size_t size) {
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c);
        if (!letter && (c == '\0' || strchr(others, c) == NULL)) {
            return false;
        }
    }
    return size > 0;
}

/* "GET /metrics HTTP/1.1": 0, or the status code that tells what is wrong. */
static int parse_request_line(const char *line, size_t size, request *ret_request) {
    const char *end = line + size;
    const char *first = memchr(line, ' ', size);
    const char *second = first != NULL ? memchr(first + 1, ' ', (size_t)(end - first - 1)) : NULL;
    if (second == NULL || second == first + 1 || !is_token(line, (size_t)(first - line))) {
        return 400;
    }
    const char *version = second + 1;
    size_t version_size = (size_t)(end - version);
    if (version_size != 8 || memcmp(version, "HTTP/", 5) != 0 || version[6] != '.' || !is_digit(version[5]) ||
        !is_digit(version[7])) {
        return 400;
    }
    if (version[5] != '1') {
        return 505;
    }
    *ret_request = (request){line, (size_t)(first - line), first + 1, (size_t)(second - first - 1)};
    return 0;
}

/* The lines after the first. HTTP/1.1 wants one Host. */
static int check_fields(const char *at, const char *end, bool wants_host) {
    unsigned hosts = 0;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)(line_end - at);
        if (size == 0 || at[size - 1] != '\r') {
            return 400;
        }
        size--;
        const char *colon = memchr(at, ':', size);
        if (colon == NULL || !is_token(at, (size_t)(colon - at)) || memchr(at, '\0', size) != NULL) {
            return 400;
        }
        hosts += colon - at == 4 && strncasecmp(at, "host", 4) == 0;
        at = line_end + 1;
    }
    return hosts > 1 || (wants_host && hosts == 0) ? 400 : 0;
}

static bool is(const char *text, size_t size, const char *expected) {
    return size == strlen(expected) && memcmp(text, expected, size) == 0;
}

/* "/metrics", "/metrics?…", and the form with scheme and host that HTTP/1.1 wants to be understood as well. */
static bool names_metrics(const char *target, size_t size) {
    if (size > 7 && strncasecmp(target, "http://", 7) == 0) {
        const char *path = memchr(target + 7, '/', size - 7);
        if (path == NULL) {
            return false;
        }
        size -= (size_t)(path - target);
        target = path;
    }
    const char *query = memchr(target, '?', size);
    return is(target, query != NULL ? (size_t)(query - target) : size, "/metrics");
}

/* What a whole head, with the empty line at its end, asks for: a status code, 200 for the metrics. */
static int judge(const char *head, size_t size, bool *ret_no_body) {
    const char *line_end = memchr(head, '\n', size);
    request asked;
    *ret_no_body = false;
    if (line_end == head || line_end[-1] != '\r') {
        return 400;
    }
    int code = parse_request_line(head, (size_t)(line_end - head) - 1, &asked);
    if (code == 0) {
        code = check_fields(line_end + 1, head + size - 2, line_end[-2] != '0');
    }
    if (code != 0) {
        return code;
    }
    *ret_no_body = is(asked.method, asked.method_size, "HEAD");
    if (!names_metrics(asked.target, asked.target_size)) {
        return 404;
    }
    return *ret_no_body || is(asked.method, asked.method_size, "GET") ? 200 : 405;
}

/* ---- The answer ---- */

static const char *reason(int code) {
    static const struct {
        int code;
        const char *text;
    } reasons[] = {
        {200, "OK"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].code == code) {
            return reasons[i].text;
        }
    }
    return "Unknown";
}

/* All of it, in memory of its own; NULL if there is none. */
static char *render(const metrics_server *server, size_t *ret_size) {
    char *text = NULL;
    size_t room = 0;
    for (;;) {
        ptrdiff_t size = tram_metrics_render(server->sources, server->source_count, text, room);
        if (size >= 0 && (size_t)size < room) {
            *ret_size = (size_t)size;
            return text;
        }
        free(text);
        room = size < 0 ? 0 : (size_t)size + 1024; /* numbers grow meanwhile */
        text = size < 0 ? NULL : malloc(room);
        if (text == NULL) {
            return NULL;
        }
    }
}

static void send_answer(tram_transport *transport, int code, const char *type, const char *body, size_t size,
                        bool no_body) {
    char head[512];
    char date[64];
    struct tm now;
    time_t seconds = time(NULL);
    strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&seconds, &now));
    int head_size = snprintf(head, sizeof(head),
                             "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s"
                             "Connection: close\r\n\r\n",
                             code, reason(code), date, type, size, code == 405 ? "Allow: GET, HEAD\r\n" : "");
    tram_transport_cork(transport);
    tram_transport_write(transport, head, (size_t)head_size);
    if (!no_body) {
        tram_transport_write(transport, body, size);
    }
    tram_transport_uncork(transport);
}

/* What else comes is ignored: the client closes when it has the answer, or the deadline does. */
static void answer(metrics_client *client, int code, bool no_body) {
    tram_transport *transport = client->base.transport;
    size_t size = 0;
    char *text = code == 200 ? render(client->server, &size) : NULL;
    client->answered = true;
    if (text != NULL) {
        send_answer(transport, 200, TRAM_METRICS_CONTENT_TYPE, text, size, no_body);
    } else {
        char body[64];
        int length = snprintf(body, sizeof(body), "%s\n", reason(code == 200 ? 500 : code));
        send_answer(transport, code == 200 ? 500 : code, "text/plain; charset=utf-8", body, (size_t)length, no_body);
    }
    free(text);
    tram_transport_write_eof(transport);
}

/* ---- The protocol ---- */

static int cut_off(tram_loop *loop, void *arg) {
    (void)loop;
    metrics_client *client = arg;
    return tram_transport_abort(client->base.transport);
}

static int client_made(tram_protocol *self, tram_transport *transport) {
    metrics_client *client = (metrics_client *)self;
    metrics_server *server = client->server;
    uint64_t deadline_ns = server->deadline_ns != 0 ? server->deadline_ns : METRICS_DEADLINE_NS;
    server->clients++;
    if (server->clients > METRICS_CLIENTS) {
        return tram_transport_abort(transport);
    }
    int code =
        tram_loop_call_later(tram_transport_get_loop(transport), deadline_ns, cut_off, client, NULL, &client->deadline);
    return code < 0 ? tram_transport_abort(transport) : 0;
}

static int client_lost(tram_protocol *self, const tram_error *error) {
    (void)error;
    metrics_client *client = (metrics_client *)self;
    client->server->clients--;
    tram_handle_cancel(tram_transport_get_loop(self->transport), client->deadline);
    return 0;
}

/* The end of the head in what has come, which is searched once: from where the last piece began. */
static const char *find_end(const metrics_client *client, size_t searched) {
    size_t from = searched > 3 ? searched - 3 : 0;
    return memmem(client->head + from, client->used - from, "\r\n\r\n", 4);
}

static int client_received(tram_protocol *self, const void *data, size_t size) {
    metrics_client *client = (metrics_client *)self;
    if (client->answered) {
        client->rest += size;
        return client->rest > REST_LIMIT ? tram_transport_abort(self->transport) : 0;
    }
    size_t searched = client->used;
    size_t room = sizeof(client->head) - client->used;
    memcpy(client->head + client->used, data, size < room ? size : room);
    client->used += size < room ? size : room;
    const char *end = find_end(client, searched);
    bool no_body = false;
    if (end != NULL) {
        int code = judge(client->head, (size_t)(end - client->head) + 4, &no_body);
        answer(client, code, no_body);
    } else if (client->used == sizeof(client->head)) {
        answer(client, 431, false);
    }
    return 0;
}

/* One that has shut its sending side after the request still gets the answer, which is on its way. */
static int client_eof(tram_protocol *self) {
    (void)self;
    return 0;
}

static void client_released(tram_protocol *self) {
    free(self);
}

static const tram_protocol_ops client_ops = {
    .connection_made = client_made,
    .connection_lost = client_lost,
    .data_received = client_received,
    .eof_received = client_eof,
    .released = client_released,
};

static int make_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    (void)loop;
    metrics_client *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        return -ENOMEM;
    }
    client->base.ops = &client_ops;
    client->server = arg;
    *ret_protocol = &client->base;
    return 0;
}

int metrics_server_start(metrics_server *server, tram_runtime *runtime, const char *host, const char *port,
                         tram_runtime_server **ret_listener, tram_error *ret_error) {
    bool given = server->socket_count > 0;
    tram_server_options options = {
        .sockets = given ? server->sockets : NULL,
        .socket_count = server->socket_count,
        .shard = TRAM_SHARD_FIXED,
        .backlog = METRICS_CLIENTS,
    };
    return tram_runtime_create_server(runtime, make_client, server, given ? NULL : host, given ? NULL : port, &options,
                                      ret_listener, ret_error);
}
