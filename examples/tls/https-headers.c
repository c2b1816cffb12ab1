/*
 * The headers of a page over TLS, fetched by a task: https-headers HOST [PORT [CA-FILE]]
 */
#include <stdio.h>
#include <string.h>

#include <tram/tls.h>
#include <tram/tram.h>

struct site {
    const char *host, *port;
    tram_tls_config *tls;
};

static int print_headers(tram_stream_reader *reader) {
    tram_bytes line;
    int status;
    while ((status = tram_stream_reader_readline(reader, &line)) == 0 && line.size > 2)
        printf("%.*s\n", (int)line.size - 2, line.data);
    return status;
}

static int fetch(void *arg) {
    const struct site *site = (const struct site *)arg;
    const tram_connection_options options = {.timeout_ns = 10000000000, .tls = site->tls}; /* 10 s */
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    char request[512];
    int status = tram_open_connection(site->host, site->port, 0, &options, &reader, &writer);
    if (status < 0)
        return status;
    int size = snprintf(request, sizeof request, "HEAD / HTTP/1.0\r\nHost: %s\r\n\r\n", site->host);
    status = tram_stream_writer_write(writer, request, (size_t)size);
    if (status == 0)
        status = print_headers(reader);
    tram_stream_writer_close(writer);
    tram_stream_writer_release(writer);
    return status;
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 4 || strcmp(argv[1], "--help") == 0) {
        puts("usage: https-headers HOST [PORT [CA-FILE]]\nPrints the headers of https://HOST/.");
        return argc < 2 || argc > 4 ? 2 : 0;
    }
    const tram_tls_options options = {.ca = {.file = argc > 3 ? argv[3] : NULL}};
    struct site site = {.host = argv[1], .port = argc > 2 ? argv[2] : "443"};
    tram_error error;
    int status = tram_tls_config_new(&options, &site.tls, &error);
    if (status < 0) {
        fprintf(stderr, "https-headers: %s\n", tram_error_describe(&error, status));
        return 1;
    }
    status = tram_run(fetch, &site, NULL);
    if (status < 0)
        fprintf(stderr, "https-headers: %s\n", tram_error_text(status));
    tram_tls_config_release(site.tls);
    return status < 0;
}
