/*
 * A line server where TLS begins on request, as in SMTP: starttls-server PORT CERTIFICATE KEY
 *
 * It answers "STARTTLS" with "220 go ahead" and does the handshake; "QUIT" with "221 bye"; any other line with
 * "250 plain LINE" or "250 secured LINE". What a client sends behind STARTTLS in the same packet is no command any
 * more: it goes to TLS, which refuses it. Ends on SIGTERM or SIGINT.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tram/tls.h>
#include <tram/tram.h>

static tram_tls_config *config;

struct session {
    tram_protocol base;
    int secured;
    size_t size;
    char line[512];
};

static int reply(struct session *session, const char *text, const char *rest) {
    char line[640];
    int size = snprintf(line, sizeof(line), "%s%s\r\n", text, rest);
    return tram_transport_write(session->base.transport, line, (size_t)size);
}

/* What is left in this packet belongs to TLS. */
static int start_tls(struct session *session, const char *ahead, size_t ahead_size) {
    tram_transport *transport = session->base.transport;
    tram_start_tls_options options = {0};
    reply(session, "220 go ahead", "");
    options.tls = config;
    options.server_side = true;
    options.ahead = ahead;
    options.ahead_size = ahead_size;
    session->secured = 1;
    return tram_loop_start_tls(tram_transport_get_loop(transport), transport, NULL, &options, NULL);
}

static int answer(struct session *session) {
    if (strcmp(session->line, "QUIT") == 0) {
        reply(session, "221 bye", "");
        return tram_transport_close(session->base.transport);
    }
    return reply(session, session->secured ? "250 secured " : "250 plain ", session->line);
}

static int received(tram_protocol *protocol, const void *data, size_t size) {
    struct session *session = (struct session *)protocol;
    const char *bytes = (const char *)data;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != '\n') {
            if (session->size + 1 == sizeof(session->line))
                return tram_transport_abort(protocol->transport);
            session->line[session->size++] = bytes[i];
            continue;
        }
        while (session->size > 0 && session->line[session->size - 1] == '\r')
            session->size--;
        session->line[session->size] = '\0';
        session->size = 0;
        if (!session->secured && strcmp(session->line, "STARTTLS") == 0)
            return start_tls(session, bytes + i + 1, size - i - 1);
        int status = answer(session);
        if (status < 0 || tram_transport_is_closing(protocol->transport))
            return status;
    }
    return 0;
}

static void released(tram_protocol *protocol) {
    free(protocol);
}

static int factory(tram_loop *loop, void *arg, tram_protocol **ret_protocol) {
    static const tram_protocol_ops ops = {.data_received = received, .released = released};
    (void)loop;
    (void)arg;
    struct session *session = (struct session *)calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    session->base.ops = &ops;
    *ret_protocol = &session->base;
    return 0;
}

static void check(int status, const char *what, const tram_error *error) {
    if (status >= 0)
        return;
    fprintf(stderr, "starttls-server: %s: %s\n", what, tram_error_describe(error, status));
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        puts("usage: starttls-server PORT CERTIFICATE KEY\nServes lines, and TLS after STARTTLS, until SIGINT or "
             "SIGTERM.");
        return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
    }
    tram_tls_certificate certificate = {0};
    tram_tls_options tls = {0};
    tram_runtime_options options = {0};
    tram_runtime *runtime;
    tram_runtime_server *server;
    tram_socket_address address;
    tram_error error = {0};
    char text[TRAM_ADDRESS_TEXT_SIZE];
    certificate.chain.file = argv[2];
    certificate.key.file = argv[3];
    tls.certificates = &certificate;
    tls.certificate_count = 1;
    options.handle_signals = true;
    options.loop.log = tram_log_to_stderr;
    check(tram_tls_config_new(&tls, &config, &error), "TLS", &error);
    check(tram_runtime_new(&options, &runtime), "making the runtime", NULL);
    check(tram_runtime_create_server(runtime, factory, NULL, "127.0.0.1", argv[1], NULL, &server, &error), "bind",
          &error);
    check(tram_runtime_server_sockname(server, 0, &address), "asking for the address", NULL);
    printf("listening on %s\n", tram_socket_address_text(&address, text, sizeof(text)));
    fflush(stdout);
    check(tram_runtime_run(runtime), "running", NULL);
    tram_runtime_free(runtime);
    tram_tls_config_release(config);
    return 0;
}
