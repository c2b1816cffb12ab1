/*
 * The files of a directory over HTTP/1.1: keep-alive, pipelining, HEAD, ranges, conditional requests, and an end that
 * answers every request that was read (SIGINT or SIGTERM).
 *
 *     http-static-server [--host HOST] [--port PORT] [--workers N] [--root DIR]
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <tram/tram.h>

#define HEAD_LIMIT  16384                 /* bytes of a request without its body: 431 */
#define BODY_LIMIT  1048576               /* bytes of a body, which is ignored: 413 */
#define SMALL_FILE  65536                 /* up to here the head and the file are one write */
#define HEAD_TIME   UINT64_C(10000000000) /* from the first byte of a request to its last: 408 */
#define IDLE_TIME   UINT64_C(60000000000)
#define HTTP_DATE   "%a, %d %b %Y %H:%M:%S GMT"
#define DATE_LENGTH 30

static int root = -1;

/* Of each worker: the date, which all answers of a second share. */
struct worker {
    time_t second;
    char date[DATE_LENGTH];
};

/* Header fields that mean something here. */
enum field { HOST, CONNECTION, LENGTH, ENCODING, RANGE, IF_RANGE, NONE_MATCH, MODIFIED, FIELDS };
static const char *const field_names[FIELDS] = {"Host",  "Connection", "Content-Length", "Transfer-Encoding",
                                                "Range", "If-Range",   "If-None-Match",  "If-Modified-Since"};

struct request {
    bool begun, head, other_method, bad, keep_alive;
    char path[4096], field[FIELDS][256];
    size_t head_size;
};

struct client {
    tram_protocol base;
    tram_input input;
    struct request request;
    uint64_t skip;    /* bytes of a body that are still to come */
    bool sending;     /* a file, and nothing is parsed meanwhile */
    bool ends;        /* after the answer that is being sent */
    bool asked;       /* to end: the runtime stops */
    int file;         /* … of `sending` */
    tram_handle late; /* runs while a request is there in part */
    bool timed;
};

/* ---- Answers ---- */

static const char *date_of(tram_loop *loop) {
    struct worker *worker = (struct worker *)tram_loop_state(loop);
    time_t now = time(NULL);
    struct tm parts;
    if (now != worker->second)
        strftime(worker->date, DATE_LENGTH, HTTP_DATE, gmtime_r(&now, &parts));
    worker->second = now;
    return worker->date;
}

/* Asked to end, it still answers what the client has sent already, and says so with the last one. */
static bool keeps_alive(const struct client *client) {
    return client->request.keep_alive && !(client->asked && tram_input_size(&client->input) == 0);
}

static void begin_head(struct client *client, tram_output *output, const char *status, uint64_t size) {
    tram_transport *transport = client->base.transport;
    bool keep_alive = keeps_alive(client);
    client->ends = !keep_alive;
    tram_output_begin(output, transport);
    tram_output_text(output, "HTTP/1.1 ");
    tram_output_text(output, status);
    tram_output_text(output, "\r\nDate: ");
    tram_output_text(output, date_of(tram_transport_get_loop(transport)));
    if (strncmp(status, "304", 3) != 0) {
        tram_output_text(output, "\r\nContent-Length: ");
        tram_output_decimal(output, size);
    }
    tram_output_text(output, keep_alive ? "\r\nConnection: keep-alive" : "\r\nConnection: close");
}

/* The answer was written: what follows. It may have been asked to end since the answer began. */
static int end_answer(struct client *client) {
    client->request.begun = false;
    if (client->ends || (client->asked && !client->skip && !tram_input_size(&client->input)))
        return tram_transport_close(client->base.transport);
    return 0;
}

static int answer_status(struct client *client, const char *status, const char *more) {
    tram_output output;
    size_t length = strlen(status);
    begin_head(client, &output, status, length + 1);
    tram_output_text(&output, "\r\nContent-Type: text/plain");
    tram_output_text(&output, more);
    tram_output_text(&output, "\r\n\r\n");
    if (!client->request.head) {
        tram_output_bytes(&output, status, length);
        tram_output_byte(&output, '\n');
    }
    tram_output_send(&output);
    return end_answer(client);
}

/* After this one the rest of the stream has no meaning. */
static int refuse(struct client *client, const char *status) {
    client->request.keep_alive = false;
    return answer_status(client, status, "");
}

static int file_sent(tram_future *future, void *arg) {
    tram_transport *transport = (tram_transport *)arg;
    struct client *client = (struct client *)tram_transport_get_protocol(transport);
    int status = tram_future_result(future, NULL);
    tram_future_release(future);
    if (client) { /* else the connection was lost */
        close(client->file);
        client->file = -1;
        client->sending = false;
        if (status < 0)
            tram_transport_reset(transport); /* the file became shorter: an orderly end would be a lie */
        else if (end_answer(client) == 0)
            tram_input_resume(&client->input);
    }
    return tram_transport_end_work(transport);
}

static int send_large(struct client *client, uint64_t from, uint64_t size) {
    tram_transport *transport = client->base.transport;
    tram_future *future;
    int status = tram_transport_begin_work(transport);
    if (status)
        return status;
    client->sending = true;
    tram_input_pause(&client->input);
    status = tram_loop_sendfile(tram_transport_get_loop(transport), transport, client->file, (int64_t)from,
                                (int64_t)size, NULL, &future);
    if (!status)
        return tram_future_add_done_callback(future, file_sent, transport);
    tram_transport_end_work(transport);
    return status;
}

/* What "bytes=…" asks for: 1; 0: nothing that one part could answer; -1: nothing that is there. */
static int parse_range(const char *text, uint64_t size, uint64_t *ret_from, uint64_t *ret_size) {
    uint64_t from = 0, last = UINT64_MAX;
    char rest;
    if (sscanf(text, "bytes=-%" SCNu64 "%c", &last, &rest) == 1) { /* the last so many */
        from = last < size ? size - last : 0;
        if (!last)
            return -1;
        last = UINT64_MAX;
    } else if (sscanf(text, "bytes=%" SCNu64 "-%" SCNu64 "%c", &from, &last, &rest) != 2 &&
               (sscanf(text, "bytes=%" SCNu64 "-%c", &from, &rest) != 1 || text[strlen(text) - 1] != '-')) {
        return 0;
    }
    if (last < from || strchr(text, ','))
        return 0;
    *ret_from = from;
    *ret_size = (last < size ? last + 1 : size) - from;
    return from < size ? 1 : -1;
}

static const char *type_of(const char *path) {
    static const char *const types[][2] = {{".html", "text/html"}, {".css", "text/css"},  {".js", "text/javascript"},
                                           {".txt", "text/plain"}, {".png", "image/png"}, {".jpg", "image/jpeg"}};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
        if (strcasecmp(dot, types[i][0]) == 0)
            return types[i][1];
    return "application/octet-stream";
}

static bool is_modified(const struct request *request, const char *etag, time_t mtime) {
    const char *none_match = request->field[NONE_MATCH];
    struct tm since = {.tm_year = 0};
    if (none_match[0])
        return !strstr(none_match, etag) && strcmp(none_match, "*") != 0;
    return !strptime(request->field[MODIFIED], HTTP_DATE, &since) || mtime > timegm(&since);
}

static int answer_file(struct client *client, const struct stat *info) {
    const struct request *request = &client->request;
    char etag[40], modified[DATE_LENGTH];
    struct tm parts;
    uint64_t size = (uint64_t)info->st_size, from = 0, count = size;
    snprintf(etag, sizeof etag, "\"%llx-%llx\"", (unsigned long long)info->st_mtime, (unsigned long long)size);
    strftime(modified, sizeof modified, HTTP_DATE, gmtime_r(&info->st_mtime, &parts));
    const char *if_range = request->field[IF_RANGE];
    bool whole = if_range[0] && strcmp(if_range, etag) != 0 && strcmp(if_range, modified) != 0;
    int part = whole ? 0 : parse_range(request->field[RANGE], size, &from, &count);
    tram_output output;
    if (!is_modified(request, etag, info->st_mtime)) {
        count = 0;
        begin_head(client, &output, "304 Not Modified", 0);
    } else if (part < 0) {
        char more[64];
        snprintf(more, sizeof more, "\r\nContent-Range: bytes */%" PRIu64, size);
        return answer_status(client, "416 Range Not Satisfiable", more);
    } else {
        begin_head(client, &output, part ? "206 Partial Content" : "200 OK", count);
        if (part)
            tram_output_printf(&output, "\r\nContent-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, from,
                               from + count - 1, size);
        tram_output_text(&output, "\r\nAccept-Ranges: bytes\r\nContent-Type: ");
        tram_output_text(&output, type_of(request->path));
    }
    tram_output_text(&output, "\r\nLast-Modified: ");
    tram_output_text(&output, modified);
    tram_output_text(&output, "\r\nETag: ");
    tram_output_text(&output, etag);
    tram_output_text(&output, "\r\n\r\n");
    if (request->head || !count) {
        tram_output_send(&output);
        return end_answer(client);
    }
    if (count > SMALL_FILE) {
        tram_output_send(&output);
        return send_large(client, from, count);
    }
    void *room = tram_output_reserve(&output, count);
    if (room && pread(client->file, room, count, (off_t)from) != (ssize_t)count) {
        tram_output_drop(&output);
        return tram_transport_reset(client->base.transport);
    }
    tram_output_send(&output);
    return end_answer(client);
}

static int answer_path(struct client *client) {
    char *path = client->request.path;
    struct stat info;
    size_t length = strlen(path);
    if (length && path[length - 1] == '/')
        strcpy(path + length, "index.html"); /* parse_path() left room */
    client->file = openat(root, path + 1, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int status;
    if (client->file < 0 || fstat(client->file, &info) < 0 || !S_ISREG(info.st_mode))
        status = answer_status(client, errno == EACCES ? "403 Forbidden" : "404 Not Found", "");
    else
        status = answer_file(client, &info);
    if (!client->sending && client->file >= 0) {
        close(client->file);
        client->file = -1;
    }
    return status;
}

static int answer(struct client *client) {
    struct request *request = &client->request;
    const char *length = request->field[LENGTH], *connection = request->field[CONNECTION];
    bool version_11 = request->keep_alive;
    request->keep_alive = version_11 ? !strcasestr(connection, "close") : strcasestr(connection, "keep-alive") != NULL;
    if (request->bad || (version_11 && !request->field[HOST][0]) || length[strspn(length, "0123456789")])
        return refuse(client, "400 Bad Request");
    if (request->field[ENCODING][0])
        return refuse(client, "501 Not Implemented");
    client->skip = strtoull(length, NULL, 10);
    if (client->skip > BODY_LIMIT)
        return refuse(client, "413 Content Too Large");
    if (request->other_method)
        return answer_status(client, "405 Method Not Allowed", "\r\nAllow: GET, HEAD");
    return answer_path(client);
}

/* ---- Requests ---- */

static int digit(char c) {
    const char *digits = "0123456789abcdef", *found = c ? strchr(digits, c | 0x20) : NULL;
    return found && !(c >= 0x10 && c < 0x1a) ? (int)(found - digits) : -1;
}

/* Decoded, and below the root; room for "index.html" stays. */
static bool parse_path(const char *text, size_t size, char *path, size_t room) {
    size_t length = 0;
    for (size_t i = 0; i < size && text[i] != '?'; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 2 < size ? digit(text[i + 1]) : -1, low = high < 0 ? -1 : digit(text[i + 2]);
            if (low < 0)
                return false;
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (!c || length + 16 > room)
            return false;
        path[length++] = c;
    }
    path[length] = '\0';
    for (const char *at = path; *at == '/'; at += 1 + strcspn(at + 1, "/"))
        if (strncmp(at, "/..", 3) == 0 && (!at[3] || at[3] == '/'))
            return false;
    return path[0] == '/' && path[1] != '/';
}

static void begin_request(struct request *request, const tram_bytes *line) {
    const char *space = (const char *)memchr(line->data, ' ', line->size);
    const char *end = line->data + line->size, *version = end - 9;
    for (unsigned i = 0; i < FIELDS; i++)
        request->field[i][0] = '\0';
    request->begun = true;
    request->head_size = 0;
    request->bad = !space || version <= space || strncmp(version, " HTTP/1.", 8) != 0;
    if (request->bad)
        return;
    request->keep_alive = version[8] != '0';
    size_t method = (size_t)(space - line->data);
    request->head = method == 4 && strncmp(line->data, "HEAD", 4) == 0;
    request->other_method = !request->head && !(method == 3 && strncmp(line->data, "GET", 3) == 0);
    const char *target = space + 1;
    if (version - target > 7 && strncasecmp(target, "http://", 7) == 0) { /* as proxies say it */
        target = (const char *)memchr(target + 7, '/', (size_t)(version - target - 7));
        target = target ? target : version;
    }
    request->bad = !parse_path(target, (size_t)(version - target), request->path, sizeof request->path);
}

static void parse_header(struct request *request, const tram_bytes *line) {
    const char *colon = (const char *)memchr(line->data, ':', line->size), *end = line->data + line->size;
    request->bad |= !colon || colon == line->data || strchr(" \t", colon[-1]) || strchr(" \t", line->data[0]);
    for (unsigned i = 0; !request->bad && i < FIELDS; i++) {
        size_t size = strlen(field_names[i]);
        if ((size_t)(colon - line->data) != size || strncasecmp(line->data, field_names[i], size) != 0)
            continue;
        const char *from = colon + 1;
        while (from < end && strchr(" \t", *from))
            from++;
        while (end > from && strchr(" \t", end[-1]))
            end--;
        request->bad |= request->field[i][0] && i <= LENGTH && i != CONNECTION; /* twice */
        size = (size_t)(end - from) < sizeof request->field[i] ? (size_t)(end - from) : 0;
        memcpy(request->field[i], from, size); /* one that is too long is as if it were not there */
        request->field[i][size] = '\0';
    }
}

static int take(struct client *client) {
    struct request *request = &client->request;
    tram_bytes bytes;
    if (client->skip) {
        int status = tram_input_some(&client->input, client->skip, &bytes);
        client->skip -= status ? 0 : bytes.size;
        return status;
    }
    int status = tram_input_line(&client->input, &bytes);
    if (status == TRAM_ELIMIT)
        return refuse(client, request->begun ? "431 Request Header Fields Too Large" : "414 URI Too Long");
    if (status || (!request->begun && !bytes.size))
        return status; /* an empty line in front of a request is allowed */
    if (!request->begun)
        begin_request(request, &bytes);
    else if (bytes.size)
        parse_header(request, &bytes);
    request->head_size += bytes.size + 2;
    if (request->head_size > HEAD_LIMIT)
        return refuse(client, "431 Request Header Fields Too Large");
    return bytes.size ? 0 : answer(client);
}

/* ---- Connections ---- */

static struct client *client_of(tram_protocol *protocol) {
    return (struct client *)(void *)protocol;
}

static int head_late(tram_loop *loop, void *arg) {
    (void)loop;
    struct client *client = (struct client *)arg;
    client->timed = false;
    return refuse(client, "408 Request Timeout");
}

/* The time of a request begins with its first bytes, and is not looked at for one that came whole. */
static int watch_head(struct client *client) {
    tram_transport *transport = client->base.transport;
    bool partial = client->request.begun || client->skip || tram_input_size(&client->input);
    bool wanted = partial && !client->sending && !tram_transport_is_closing(transport);
    if (wanted == client->timed)
        return 0;
    client->timed = wanted;
    if (wanted)
        return tram_loop_call_later(tram_transport_get_loop(transport), HEAD_TIME, head_late, client, NULL,
                                    &client->late);
    tram_handle_cancel(tram_transport_get_loop(transport), client->late);
    return 0;
}

static int parse(tram_protocol *self, tram_input *input) {
    (void)input;
    int status;
    while (!(status = take(client_of(self))))
        continue;
    int watched = watch_head(client_of(self));
    return status == -EAGAIN ? watched : status == TRAM_EINCOMPLETE ? -EAGAIN : status;
}

static int data_received(tram_protocol *self, const void *data, size_t size) {
    return tram_input_feed(&client_of(self)->input, data, size);
}

/* What was asked for before is answered. */
static int eof_received(tram_protocol *self) {
    client_of(self)->asked = true;
    int status = tram_input_feed_eof(&client_of(self)->input);
    return client_of(self)->sending ? 1 : status;
}

static int pause_writing(tram_protocol *self) {
    tram_input_pause(&client_of(self)->input);
    return 0;
}

static int resume_writing(tram_protocol *self) {
    return client_of(self)->sending ? 0 : tram_input_resume(&client_of(self)->input);
}

static int closing(tram_protocol *self, uint64_t deadline_ns) {
    (void)deadline_ns;
    struct client *client = client_of(self);
    client->asked = true;
    bool idle = !client->request.begun && !client->skip && !client->sending && !tram_input_size(&client->input);
    return idle ? tram_transport_close(self->transport) : 0;
}

static int connection_lost(tram_protocol *self, const tram_error *error) {
    (void)error;
    if (client_of(self)->timed)
        tram_handle_cancel(tram_transport_get_loop(self->transport), client_of(self)->late);
    return 0;
}

static void released(tram_protocol *self) {
    struct client *client = client_of(self);
    if (client->file >= 0)
        close(client->file);
    tram_input_fini(&client->input);
    free(client);
}

static int make_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.data_received = data_received,
                                          .eof_received = eof_received,
                                          .connection_lost = connection_lost,
                                          .pause_writing = pause_writing,
                                          .resume_writing = resume_writing,
                                          .released = released,
                                          .closing = closing};
    struct client *client = (struct client *)calloc(1, sizeof *client);
    const tram_input_options options = {
        .limit = HEAD_LIMIT / 2, .loop = loop, .protocol = client ? &client->base : NULL, .parse = parse};
    (void)arg;
    if (!client)
        return -ENOMEM;
    client->base.ops = &ops;
    client->file = -1;
    *ret_protocol = &client->base;
    return tram_input_init(&client->input, &options);
}

/* ---- The program ---- */

static int start_worker(tram_runtime *runtime, unsigned index, tram_loop *loop, void **state, void *arg) {
    (void)runtime, (void)index, (void)loop, (void)arg;
    *state = calloc(1, sizeof(struct worker));
    return *state ? 0 : -ENOMEM;
}

static int stop_worker(tram_runtime *runtime, unsigned index, tram_loop *loop, void **state, void *arg) {
    (void)runtime, (void)index, (void)loop, (void)arg;
    free(*state);
    return 0;
}

static int serve(const char *host, const char *port, unsigned workers) {
    const tram_server_limits limits = {.idle_timeout_ns = IDLE_TIME, .first_byte_timeout_ns = HEAD_TIME};
    const tram_server_options server_options = {.limits = &limits};
    const tram_runtime_options options = {.workers = workers,
                                          .handle_signals = true,
                                          .start = start_worker,
                                          .stop = stop_worker,
                                          .loop = {.log = tram_log_to_stderr}};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    tram_error error = {.code = 0};
    char text[TRAM_ADDRESS_TEXT_SIZE];
    int status = tram_runtime_new(&options, &runtime);
    if (!status)
        status = tram_runtime_create_server(runtime, make_client, NULL, host, port, &server_options, &server, &error);
    if (status) {
        fprintf(stderr, "http-static-server: %s\n", error.detail ? error.detail : tram_error_text(status));
        return EXIT_FAILURE;
    }
    tram_runtime_server_sockname(server, 0, &address);
    status = tram_runtime_start(runtime);
    if (!status) {
        printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
        fflush(stdout);
        status = tram_runtime_join(runtime);
    }
    tram_runtime_free(runtime);
    return status ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    static const char usage[] =
        "usage: http-static-server [--host HOST] [--port PORT] [--workers N] [--root DIR]\n"
        "Serves the files of DIR (.) on HOST (127.0.0.1) and PORT (8080), with N workers (one for each CPU).\n";
    static const char *const names[] = {"--host", "--port", "--workers", "--root"};
    const char *values[] = {"127.0.0.1", "8080", "0", "."};
    for (int i = 1; i < argc; i += 2) {
        size_t which = 0;
        while (which < 4 && strcmp(argv[i], names[which]) != 0)
            which++;
        bool help = strcmp(argv[i], "--help") == 0;
        if (which == 4 || i + 1 == argc) {
            fputs(usage, help ? stdout : stderr);
            return help ? EXIT_SUCCESS : 2;
        }
        values[which] = argv[i + 1];
    }
    root = open(values[3], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        fprintf(stderr, "http-static-server: %s: %s\n", values[3], strerror(errno));
        return EXIT_FAILURE;
    }
    return serve(values[0], values[1], (unsigned)strtoul(values[2], NULL, 10));
}
