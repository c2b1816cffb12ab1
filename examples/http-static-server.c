/* The files of a directory over HTTP/1.1: keep-alive, pipelining, HEAD, ranges, conditional requests, and an end that
 * answers every request that was read (SIGINT or SIGTERM). */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static const char *root_path = ".";
static int root = -1;

/* Header fields that mean something here. */
enum field { HOST, CONNECTION, LENGTH, ENCODING, RANGE, IF_RANGE, NONE_MATCH, MODIFIED, FIELDS };
static const char *const field_names[FIELDS] = {"Host",  "Connection", "Content-Length", "Transfer-Encoding",
                                                "Range", "If-Range",   "If-None-Match",  "If-Modified-Since"};

struct request {
    bool bad, version_11, other_method;
    const char *path, *field[FIELDS]; /* in a copy of the head */
};

struct client {
    tram_protocol base;
    tram_input input;
    uint64_t skip;         /* bytes of a body that are still to come */
    int file;              /* the answer's; while it is being sent nothing is parsed; -1: none */
    bool head, keep_alive; /* what the request that is answered wants */
    bool asked;            /* to end: the runtime stops */
    bool timed;            /* a request is there in part */
    time_t second, mtime;  /* of these, which most answers have as the one before: */
    char date[DATE_LENGTH], modified[DATE_LENGTH];
};

/* ---- Answers ---- */

static const char *date_of(char *text, time_t *kept, time_t second) {
    struct tm parts;
    if (second != *kept || !*text)
        strftime(text, DATE_LENGTH, HTTP_DATE, gmtime_r(&second, &parts));
    *kept = second;
    return text;
}

static void add_field(tram_output *output, const char *name, const char *value) {
    tram_output_text(output, name);
    tram_output_text(output, value);
}

/* Asked to end, it still answers what the client has sent already, and says so with the last one. */
static void begin_head(struct client *client, tram_output *output, const char *status, uint64_t size) {
    client->keep_alive &= !(client->asked && tram_input_size(&client->input) == 0);
    tram_output_begin(output, client->base.transport);
    add_field(output, "HTTP/1.1 ", status);
    add_field(output, "\r\nDate: ", date_of(client->date, &client->second, time(NULL)));
    add_field(output, "\r\nConnection: ", client->keep_alive ? "keep-alive" : "close");
    tram_output_text(output, "\r\nContent-Length: ");
    tram_output_decimal(output, size);
}

/* The answer was written. It may have been asked to end since the answer began. */
static int end_answer(struct client *client) {
    if (client->file >= 0)
        close(client->file);
    client->file = -1;
    if (!client->keep_alive || (client->asked && !client->skip && !tram_input_size(&client->input)))
        return tram_transport_close(client->base.transport);
    return 0;
}

static int answer_status(struct client *client, const char *status, const char *more) {
    tram_output output;
    begin_head(client, &output, status, strlen(status) + 1);
    add_field(&output, "\r\nContent-Type: text/plain", more);
    tram_output_text(&output, "\r\n\r\n");
    if (!client->head)
        add_field(&output, status, "\n");
    tram_output_send(&output);
    return end_answer(client);
}

/* After this one the rest of the stream has no meaning. */
static int refuse(struct client *client, const char *status) {
    client->keep_alive = false;
    return answer_status(client, status, "");
}

/* The transport was held; its protocol is NULL where the connection was lost meanwhile. */
static int file_sent(tram_future *future, void *arg) {
    tram_transport *transport = (tram_transport *)arg;
    struct client *client = (struct client *)tram_transport_get_protocol(transport);
    if (client && tram_future_result(future, NULL) < 0)
        tram_transport_reset(transport); /* the file became shorter: an orderly end would be a lie */
    else if (client && end_answer(client) == 0)
        tram_input_resume(&client->input);
    tram_future_release(future);
    tram_transport_release(transport);
    return 0;
}

/* Behind the head. */
static int send_content(struct client *client, tram_output *output, uint64_t from, uint64_t count) {
    tram_transport *transport = client->base.transport;
    tram_future *future;
    if (count <= SMALL_FILE) {
        void *room = count ? tram_output_reserve(output, count) : NULL;
        if (room && pread(client->file, room, count, (off_t)from) != (ssize_t)count)
            tram_transport_reset(transport); /* became shorter, as above; what is sent now is dropped */
        tram_output_send(output);
        return end_answer(client);
    }
    tram_output_send(output);
    int status = tram_loop_sendfile(tram_transport_get_loop(transport), transport, client->file, (int64_t)from,
                                    (int64_t)count, NULL, &future);
    if (status)
        return status;
    tram_input_pause(&client->input);
    status = tram_future_add_done_callback(future, file_sent, tram_transport_hold(transport));
    if (status)
        file_sent(future, transport);
    return status;
}

/* What "bytes=…" asks for: 1; 0: nothing that one part could answer; -1: nothing that is there. */
static int parse_range(const char *text, uint64_t size, uint64_t *ret_from, uint64_t *ret_size) {
    uint64_t from = 0, last = UINT64_MAX;
    int end = 0;
    if (sscanf(text, "bytes=-%" SCNu64 "%n", &last, &end) == 1) { /* the last so many */
        from = last < size ? size - last : 0;
        last = UINT64_MAX;
    } else {
        sscanf(text, "bytes=%" SCNu64 "-%n%" SCNu64 "%n", &from, &end, &last, &end);
    }
    if (!end || text[end] || last < from)
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
    const char *none_match = request->field[NONE_MATCH], *date = request->field[MODIFIED];
    struct tm since = {.tm_year = 0};
    if (none_match[0])
        return !strstr(none_match, etag) && strcmp(none_match, "*") != 0;
    return !*date || !strptime(date, HTTP_DATE, &since) || mtime > timegm(&since);
}

static int answer_file(struct client *client, const struct request *request, const struct stat *info) {
    char etag[40];
    uint64_t size = (uint64_t)info->st_size, from = 0, count = size;
    const char *range = request->field[RANGE], *if_range = request->field[IF_RANGE];
    const char *modified = date_of(client->modified, &client->mtime, info->st_mtime);
    if (*if_range || *request->field[NONE_MATCH])
        snprintf(etag, sizeof etag, "\"%llx%016llx\"", (unsigned long long)info->st_mtime, (unsigned long long)size);
    bool has_it = !is_modified(request, etag, info->st_mtime);
    bool whole = has_it || !*range || (*if_range && strcmp(if_range, etag) != 0 && strcmp(if_range, modified) != 0);
    int part = whole ? 0 : parse_range(range, size, &from, &count);
    const char *status = part > 0 ? "206 Partial Content" : part < 0 ? "416 Range Not Satisfiable" : "200 OK";
    tram_output output;
    begin_head(client, &output, has_it ? "304 Not Modified" : status, part < 0 ? 0 : count);
    if (part < 0)
        tram_output_printf(&output, "\r\nContent-Range: bytes */%" PRIu64, size);
    else if (part)
        tram_output_printf(&output, "\r\nContent-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, from, from + count - 1,
                           size);
    add_field(&output, "\r\nAccept-Ranges: bytes\r\nContent-Type: ", type_of(request->path));
    add_field(&output, "\r\nLast-Modified: ", modified);
    tram_output_text(&output, "\r\nETag: \"");
    tram_output_hex(&output, (uint64_t)info->st_mtime, 1);
    tram_output_hex(&output, size, 16);
    tram_output_text(&output, "\"\r\n\r\n");
    return send_content(client, &output, from, has_it || part < 0 || client->head ? 0 : count);
}

static int answer_path(struct client *client, const struct request *request) {
    char index[HEAD_LIMIT];
    struct stat info;
    bool folder = request->path[strlen(request->path) - 1] == '/';
    if (folder)
        snprintf(index, sizeof index, "%sindex.html", request->path + 1);
    client->file = openat(root, folder ? index : request->path + 1, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (client->file >= 0 && fstat(client->file, &info) == 0 && S_ISREG(info.st_mode))
        return answer_file(client, request, &info);
    return answer_status(client, client->file < 0 && errno == EACCES ? "403 Forbidden" : "404 Not Found", "");
}

static int answer(struct client *client, const struct request *request) {
    const char *length = request->field[LENGTH], *wish = request->field[CONNECTION];
    client->keep_alive = request->version_11 ? !strcasestr(wish, "close") : strcasestr(wish, "keep-alive") != NULL;
    if (request->bad || (request->version_11 && !request->field[HOST][0]) || length[strspn(length, "0123456789")])
        return refuse(client, "400 Bad Request");
    if (request->field[ENCODING][0])
        return refuse(client, "501 Not Implemented");
    client->skip = strtoull(length, NULL, 10);
    if (client->skip > BODY_LIMIT)
        return refuse(client, "413 Content Too Large");
    if (request->other_method)
        return answer_status(client, "405 Method Not Allowed", "\r\nAllow: GET, HEAD");
    return answer_path(client, request);
}

/* ---- Requests ---- */

/* Decodes it in its place. It must be below the root. */
static bool parse_path(char *path) {
    char *to = path;
    for (const char *at = path; *at && *at != '?'; at++) {
        char c = *at;
        if (c == '%') {
            const char hex[3] = {at[1], at[1] ? at[2] : '\0', '\0'};
            if (strspn(hex, "0123456789abcdefABCDEF") != 2)
                return false;
            c = (char)strtoul(hex, NULL, 16);
            at += 2;
        }
        if (!c)
            return false;
        *to++ = c;
    }
    *to = '\0';
    for (const char *at = path; *at == '/'; at += 1 + strcspn(at + 1, "/"))
        if (strncmp(at, "/..", 3) == 0 && (!at[3] || at[3] == '/'))
            return false;
    return path[0] == '/' && path[1] != '/';
}

static void parse_request_line(struct client *client, struct request *request, char *line) {
    char *target = strchr(line, ' '), *version = strrchr(line, ' ');
    request->bad = version == target || strncmp(version, " HTTP/1.", 8) != 0 || strcspn(version + 1, "\r") != 8;
    if (request->bad)
        return;
    request->version_11 = version[8] != '0';
    *target++ = *version = '\0';
    client->head = strcmp(line, "HEAD") == 0;
    request->other_method = !client->head && strcmp(line, "GET") != 0;
    if (strncasecmp(target, "http://", 7) == 0) /* as proxies say it */
        target += 7 + strcspn(target + 7, "/");
    request->path = target;
    request->bad = !parse_path(target);
}

static void parse_field(struct request *request, char *line) {
    size_t name = strcspn(line, ": \t");
    request->bad = !name || line[name] != ':';
    if (request->bad)
        return;
    line[name] = '\0';
    char *value = line + name + 1 + strspn(line + name + 1, " \t");
    for (size_t size = strlen(value); size && strchr(" \t\r", value[size - 1]); size--)
        value[size - 1] = '\0';
    for (unsigned i = 0; i < FIELDS; i++) {
        if ((*line & ~0x20) != *field_names[i] || strcasecmp(line, field_names[i]) != 0)
            continue;
        request->bad |= *request->field[i] && i <= LENGTH && i != CONNECTION; /* twice */
        request->field[i] = value;
    }
}

/* All lines, without the empty one that ends them. */
static int answer_head(struct client *client, tram_bytes head) {
    char text[HEAD_LIMIT + 1], *rest = text, *line;
    memcpy(text, head.data, head.size);
    text[head.size] = '\0';
    rest += strspn(rest, "\r\n"); /* empty lines in front of a request are allowed */
    if (rest == text + head.size)
        return 0;
    struct request request = {.bad = strlen(text) != head.size};
    for (unsigned i = 0; i < FIELDS; i++)
        request.field[i] = "";
    client->head = false;
    if (!request.bad)
        parse_request_line(client, &request, strsep(&rest, "\n"));
    while (!request.bad && (line = strsep(&rest, "\n")))
        parse_field(&request, line);
    return answer(client, &request);
}

static int take(struct client *client, tram_input *input) {
    static const tram_bytes ends[] = {{"\n\r\n", 3}, {"\n\n", 2}};
    tram_bytes bytes;
    bool is_body = client->skip;
    int status =
        is_body ? tram_input_some(input, client->skip, &bytes) : tram_input_until_any(input, ends, 2, &bytes, NULL);
    if (status == TRAM_ELIMIT)
        return refuse(client, "431 Request Header Fields Too Large");
    if (!status && is_body)
        client->skip -= bytes.size;
    return status || is_body ? status : answer_head(client, bytes);
}

/* ---- Connections ---- */

static bool is_partial(const struct client *client) {
    return client->skip || tram_input_size(&client->input);
}

static int head_late(tram_transport *transport, void *arg) {
    (void)arg;
    return refuse((struct client *)tram_transport_get_protocol(transport), "408 Request Timeout");
}

/* The time of a request begins with its first bytes, and is not looked at for one that came whole. */
static int watch_head(struct client *client) {
    bool wanted = is_partial(client) && client->file < 0;
    if (wanted == client->timed || tram_transport_is_closing(client->base.transport))
        return 0;
    client->timed = wanted;
    return tram_transport_call_later(client->base.transport, wanted ? HEAD_TIME : TRAM_FOREVER, head_late, NULL);
}

static int parse(tram_protocol *self, tram_input *input) {
    struct client *client = (struct client *)self;
    int status;
    while (!(status = take(client, input)))
        continue;
    int watched = watch_head(client);
    return status == -EAGAIN ? watched : status == TRAM_EINCOMPLETE ? -EAGAIN : status;
}

static int closing(tram_protocol *self, uint64_t deadline_ns) {
    (void)deadline_ns;
    struct client *client = (struct client *)self;
    client->asked = true;
    return is_partial(client) || client->file >= 0 ? 0 : tram_transport_close(self->transport);
}

static void released(tram_protocol *self) {
    struct client *client = (struct client *)self;
    if (client->file >= 0)
        close(client->file);
    tram_input_fini(&client->input);
    free(client);
}

static int make_client(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.data_received = tram_input_data_received,
                                          .eof_received = tram_input_eof_received,
                                          .pause_writing = tram_input_pause_writing,
                                          .resume_writing = tram_input_resume_writing,
                                          .released = released,
                                          .closing = closing};
    (void)arg;
    struct client *client = (struct client *)calloc(1, sizeof *client);
    if (!client)
        return -ENOMEM;
    client->base.ops = &ops;
    client->file = -1;
    *ret_protocol = &client->base;
    const tram_input_options options = {.limit = HEAD_LIMIT, .loop = loop, .protocol = &client->base, .parse = parse};
    return tram_input_init(&client->input, &options);
}

/* ---- The program ---- */

static int open_root(void *arg) {
    (void)arg;
    root = open(root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        perror(root_path);
    return root < 0 ? -ENOENT : 0;
}

int main(int argc, char **argv) {
    static const tram_serve_argument arguments[] = {{"--root", "DIR", "what is served (.)", &root_path}, {0}};
    const tram_server_limits limits = {.idle_timeout_ns = IDLE_TIME, .first_byte_timeout_ns = HEAD_TIME};
    const tram_server_options server = {.limits = &limits};
    const tram_runtime_options runtime = {.loop = {.log = tram_log_to_stderr}};
    const tram_serve_options options = {.name = "http-static-server",
                                        .summary = "serves the files of a directory over HTTP/1.1",
                                        .port = "8080",
                                        .arguments = arguments,
                                        .prepare = open_root,
                                        .server = &server,
                                        .runtime = &runtime};
    return tram_serve_main(argc, argv, make_client, NULL, &options) ? EXIT_FAILURE : EXIT_SUCCESS;
}
