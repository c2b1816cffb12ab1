/*
 * An HTTP client that follows redirects, for many URLs at once, of which a semaphore lets four connect.
 *
 *     http-client http://HOST[:PORT]/PATH …
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <tram/tram.h>

#define AT_ONCE   4
#define REDIRECTS 5

static tram_semaphore semaphore;

struct url {
    char host[256], port[8], path[1024];
};

struct answer {
    int status;
    char location[1024];
    size_t size; /* of the body */
};

/* What is no whole URL is a path at the same server. */
static int parse_url(const char *text, struct url *url) {
    if (text[0] == '/')
        return snprintf(url->path, sizeof url->path, "%s", text) < (int)sizeof url->path ? 0 : TRAM_EVALUE;
    strcpy(url->port, "80");
    strcpy(url->path, "/");
    if (sscanf(text, "http://%255[^:/]:%7[0-9]%1023s", url->host, url->port, url->path) >= 2)
        return 0;
    return sscanf(text, "http://%255[^:/]%1023s", url->host, url->path) >= 1 ? 0 : TRAM_EVALUE;
}

static int read_answer(tram_stream_reader *reader, struct answer *answer) {
    tram_bytes line, body;
    int status = tram_stream_reader_readline(reader, &line);
    if (status < 0)
        return status;
    if (line.size < 14 || memcmp(line.data, "HTTP/1.", 7) != 0)
        return TRAM_EVALUE;
    answer->status = atoi(line.data + 9);
    answer->location[0] = '\0';
    while ((status = tram_stream_reader_readline(reader, &line)) == 0 && line.size > 2)
        if (line.size > 11 && strncasecmp(line.data, "location: ", 10) == 0)
            snprintf(answer->location, sizeof answer->location, "%.*s", (int)line.size - 12, line.data + 10);
    if (status == 0)
        status = tram_stream_reader_readall(reader, &body);
    answer->size = status == 0 ? body.size : 0;
    return status;
}

/* HTTP/1.0, so the end of the stream is the end of the body. */
static int ask(const struct url *url, struct answer *answer) {
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    char request[1500];
    int status = tram_open_connection(url->host, url->port, 0, NULL, &reader, &writer);
    if (status < 0)
        return status;
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", url->path, url->host);
    status = tram_stream_writer_write(writer, request, (size_t)size);
    if (status == 0)
        status = read_answer(reader, answer);
    tram_stream_writer_close(writer);
    tram_stream_writer_release(writer);
    return status;
}

static int follow(const char *text, struct answer *answer) {
    struct url url = {.host = ""};
    int status = parse_url(text, &url);
    for (int i = 0; status == 0 && i <= REDIRECTS; i++) {
        status = ask(&url, answer);
        if (status < 0 || answer->status / 100 != 3 || !answer->location[0])
            return status;
        status = parse_url(answer->location, &url);
    }
    return status < 0 ? status : TRAM_ELIMIT;
}

/* Prints what became of it; only a cancellation is a failure of the task. */
static int fetch(void *arg) {
    const char *text = (const char *)arg;
    struct answer answer = {0};
    int status = tram_semaphore_acquire(&semaphore);
    if (status < 0)
        return status;
    status = follow(text, &answer);
    tram_semaphore_release(&semaphore);
    if (status < 0)
        printf("%s: %s\n", text, tram_error_text(status));
    else
        printf("%s: %d, %zu bytes\n", text, answer.status, answer.size);
    return status == TRAM_ECANCELLED ? status : 0;
}

static int fetch_all(void *arg) {
    tram_group *group;
    tram_semaphore_init(&semaphore, AT_ONCE, true);
    int status = tram_group_begin(&group);
    if (status < 0)
        return status;
    for (char **text = (char **)arg; *text && status == 0; text++)
        status = tram_group_spawn(group, fetch, *text, NULL, NULL);
    return tram_group_end(group, status);
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        puts("usage: http-client URL…\nFetches http:// URLs, follows redirects, and prints status and size of each.");
        return argc < 2 ? 2 : 0;
    }
    return tram_run(fetch_all, argv + 1, NULL) < 0;
}
