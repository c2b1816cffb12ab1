/*
 * tram's side of interop_tls_servers.py, which compiles it.
 *
 *     interop_tls names FIRST SECOND
 *
 * A server with the certificate FIRST, or SECOND for those who ask for "second.test"; "nobody.test" is refused. It
 * answers any request with the name that was asked for.
 *
 *     interop_tls starttls PORT CA
 *
 * A client that says STARTTLS, and goes on over TLS when it was answered.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tls.h>
#include <tram/tram.h>

static void check(int status, const char *what, const tram_error *error) {
    if (status >= 0)
        return;
    fprintf(stderr, "interop_tls: %s: %s\n", what, tram_error_describe(error && error->code ? error : NULL, status));
    exit(1);
}

/* ---- A server of several names ---- */

static tram_tls_config *second;

static int choose(void *arg, const char *name, tram_tls_config **ret_config) {
    (void)arg;
    if (name && strcmp(name, "second.test") == 0)
        *ret_config = second;
    return name && strcmp(name, "nobody.test") == 0 ? TRAM_EUSER : 0;
}

static int answer(tram_protocol *self, const void *data, size_t size) {
    char text[512];
    (void)data, (void)size;
    const char *name = tram_transport_get_extra_info(self->transport, "server_hostname", "no name");
    int length = snprintf(text, sizeof text, "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\n\r\nasked for %s\n",
                          strlen(name) + 11, name);
    int status = tram_transport_write(self->transport, text, (size_t)length);
    return status ? status : tram_transport_close(self->transport);
}

static void released(tram_protocol *self) {
    free(self);
}

static int make(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.data_received = answer, .released = released};
    (void)loop, (void)arg;
    *ret_protocol = calloc(1, sizeof **ret_protocol);
    if (!*ret_protocol)
        return -ENOMEM;
    (*ret_protocol)->ops = &ops;
    return 0;
}

static tram_tls_config *identity(const char *file, tram_tls_server_name_function choice) {
    const tram_tls_certificate certificate = {.chain.file = file};
    const tram_tls_options options = {.certificates = &certificate, .certificate_count = 1, .server_name = choice};
    tram_tls_config *config = NULL;
    tram_error error = {0};
    check(tram_tls_config_new(&options, &config, &error), file, &error);
    return config;
}

static int serve_names(const char *first_file, const char *second_file) {
    tram_tls_config *first = identity(first_file, choose);
    second = identity(second_file, NULL);
    const tram_runtime_options options = {.handle_signals = true, .workers = 2, .loop.log = tram_log_to_stderr};
    const tram_server_options serving = {.tls = first};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    char text[TRAM_ADDRESS_TEXT_SIZE];
    check(tram_runtime_new(&options, &runtime), "making the runtime", NULL);
    check(tram_runtime_create_server(runtime, make, NULL, "127.0.0.1", "0", &serving, &server, NULL), "bind", NULL);
    check(tram_runtime_server_sockname(server, 0, &address), "asking for the address", NULL);
    printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof text));
    fflush(stdout);
    check(tram_runtime_run(runtime), "running", NULL);
    tram_runtime_free(runtime);
    tram_tls_config_release(first);
    tram_tls_config_release(second);
    return 0;
}

/* ---- A client of STARTTLS ---- */

static tram_tls_config *trusted;

static int ask(tram_stream_reader *reader, tram_stream_writer *writer, const char *text) {
    tram_bytes line;
    int status = tram_stream_writer_write(writer, text, strlen(text));
    if (!status)
        status = tram_stream_reader_readline(reader, &line);
    if (!status)
        printf("%.*s", (int)line.size, line.data);
    return status;
}

static int talk(void *port) {
    const tram_start_tls_options options = {.tls = trusted, .server_hostname = "localhost"};
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    int status = tram_open_connection("127.0.0.1", port, 0, NULL, &reader, &writer);
    if (status)
        return status;
    status = ask(reader, writer, "STARTTLS\n");
    if (!status)
        status = tram_stream_writer_start_tls(writer, &options);
    if (!status)
        status = ask(reader, writer, "hello\n");
    if (!status)
        status = ask(reader, writer, "bye\n");
    tram_stream_writer_close(writer);
    int end = tram_stream_writer_wait_closed(writer);
    tram_stream_writer_release(writer);
    return status ? status : end;
}

static int start_tls(char *port, const char *ca) {
    const tram_tls_options options = {.ca.file = ca};
    tram_error error = {0};
    check(tram_tls_config_new(&options, &trusted, &error), ca, &error);
    int status = tram_run(talk, port, NULL);
    check(status, "talking", tram_run_error());
    tram_tls_config_release(trusted);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "names") == 0)
        return serve_names(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "starttls") == 0)
        return start_tls(argv[2], argv[3]);
    return 2;
}
