/* Streams over TLS: from the beginning, and from the middle on. Both ends are tasks of one loop. */
#include <sys/socket.h>
#include <unistd.h>

#include "support/tasks.h"
#include "support/tls/certificates.h"

static struct world *world;
static struct authority authority, stranger;
static tram_tls_config *servers, *clients, *half_closing_servers;

static int setup(void **state) {
    (void)state;
    authority_make(&authority);
    authority_make(&stranger);
    servers = server_config(authority.server);
    clients = client_config(authority.ca);
    tram_tls_certificate identity = identity_of(authority.server);
    tram_tls_options options = {.certificates = &identity, .certificate_count = 1, .half_close = true};
    half_closing_servers = config_make(&options);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    tram_tls_config_release(servers);
    tram_tls_config_release(clients);
    tram_tls_config_release(half_closing_servers);
    authority_free(&authority);
    authority_free(&stranger);
    return 0;
}

static int test_setup(void **state) {
    int status = world_setup(state);
    world = tasks_world = *state;
    return status;
}

/* ---- A server and a client, each a function ---- */

struct scene {
    tram_stream_service service;
    tram_server_options server;
    tram_connection_options connection;
    size_t limit; /* of the client */
    int (*client)(tram_stream_reader *reader, tram_stream_writer *writer);
};

static int close_stream(tram_stream_writer *writer, int status) {
    tram_stream_writer_close(writer);
    int closed = tram_stream_writer_wait_closed(writer);
    return status ? status : closed;
}

static int play_client(const struct scene *scene, const char *port) {
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    int status = tram_open_connection("127.0.0.1", port, scene->limit, &scene->connection, &reader, &writer);
    if (status)
        return status;
    status = scene->client(reader, writer);
    tram_stream_writer_close(writer);
    tram_stream_writer_release(writer);
    return status;
}

static int play(void *arg) {
    const struct scene *scene = arg;
    tram_server *server;
    tram_future *closed;
    tram_socket_address address;
    char port[8];
    assert_int_equal(tram_start_server(&scene->service, "127.0.0.1", NULL, &scene->server, &server), 0);
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    snprintf(port, sizeof port, "%d", tram_socket_address_port(&address));
    int status = play_client(scene, port);
    assert_int_equal(tram_server_close(server), 0);
    assert_int_equal(tram_server_wait_closed(server, &closed), 0);
    assert_int_equal(tram_await(closed, NULL), 0);
    tram_future_release(closed);
    tram_server_release(server);
    return status;
}

/* ---- Lines ---- */

static int say(tram_stream_writer *writer, const char *text) {
    int status = tram_stream_writer_write(writer, text, strlen(text));
    return status ? status : tram_stream_writer_drain(writer);
}

static void hear(tram_stream_reader *reader, const char *text) {
    tram_bytes line;
    assert_int_equal(tram_stream_reader_readline(reader, &line), 0);
    assert_int_equal(line.size, strlen(text));
    assert_memory_equal(line.data, text, line.size);
}

/* Gives back each line, and ends with the client. */
static int echo(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)arg;
    tram_bytes line;
    int status;
    while (!(status = tram_stream_reader_readline(reader, &line)) && line.size)
        tram_stream_writer_write(writer, line.data, line.size);
    trace(world, "server:%s", status_name(status));
    return status ? status : close_stream(writer, 0);
}

static bool is_tls(tram_stream_writer *writer) {
    return tram_stream_writer_get_extra_info(writer, "cipher", NULL) != NULL;
}

static int talk(tram_stream_reader *reader, tram_stream_writer *writer) {
    assert_true(is_tls(writer));
    assert_int_equal(say(writer, "secret\n"), 0);
    hear(reader, "secret\n");
    return close_stream(writer, 0);
}

/* ---- TLS from the beginning ---- */

static void test_K_1_tls_options_of_connections_and_servers(void **state) {
    (void)state;
    struct scene scene = {
        .service = {.handler = echo},
        .server = {.tls = servers},
        .connection = {.tls = clients, .server_hostname = "localhost"},
        .client = talk,
    };
    assert_int_equal(run_function(play, &scene), 0);
    run_until_traced(world, "server:ok");
    assert_int_equal(world->exceptions, 0);
}

static void test_K_1_a_certificate_that_is_not_trusted(void **state) {
    (void)state;
    tram_tls_config *strangers = client_config(stranger.ca);
    struct scene scene = {
        .service = {.handler = echo},
        .server = {.tls = servers},
        .connection = {.tls = strangers, .server_hostname = "localhost"},
        .client = talk,
    };
    assert_int_equal(run_function(play, &scene), TRAM_ETLS_CERTIFICATE);
    assert_trace(world, ""); /* no handler began */
    tram_tls_config_release(strangers);
}

static int read_line(void *reader) {
    tram_bytes line;
    return tram_stream_reader_readline(reader, &line);
}

/* Where the task ends, its failure has the text of the stream's. */
static int read_in_vain(tram_stream_reader *reader, tram_stream_writer *writer) {
    tram_task *task;
    assert_int_equal(say(writer, "secret\n"), 0); /* the client is done before the server looks */
    for (int turn = 0; turn < 2; turn++) {        /* also where the connection is lost already */
        assert_int_equal(tram_task_spawn(world->loop, read_line, reader, NULL, &task), 0);
        assert_int_equal(tram_await(tram_task_future(task), NULL), TRAM_ETLS);
        const tram_error *error = tram_future_error(tram_task_future(task));
        assert_non_null(error->detail);
        assert_non_null(strstr(error->detail, "certificate required"));
        tram_task_release(task);
    }
    return 0;
}

static void test_K_18_a_read_that_fails_tells_why(void **state) {
    (void)state;
    const tram_tls_certificate identity = identity_of(authority.server);
    tram_tls_config *asking = config_make(&(tram_tls_options){
        .certificates = &identity, .certificate_count = 1, .ca = source_of(authority.ca->chain_pem)});
    struct scene scene = {
        .service = {.handler = echo},
        .server = {.tls = asking},
        .connection = {.tls = clients, .server_hostname = "localhost"},
        .client = read_in_vain,
    };
    assert_int_equal(run_function(play, &scene), 0);
    tram_tls_config_release(asking);
}

/* ---- The end ---- */

/* Ends its direction, or with TLS the whole connection, and hears whatever still comes. */
static int end_at_once(tram_stream_reader *reader, tram_stream_writer *writer) {
    tram_bytes rest;
    assert_int_equal(say(writer, "one\n"), 0);
    hear(reader, "one\n");
    int status = tram_stream_writer_write_eof(writer);
    if (status)
        status = tram_stream_writer_close(writer);
    assert_int_equal(status, 0);
    assert_int_equal(tram_stream_reader_readall(reader, &rest), 0);
    trace(world, "client:%.*s", (int)rest.size, rest.data);
    return close_stream(writer, 0);
}

/* Answers after the end, if it can. */
static int answer_late(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)arg;
    hear(reader, "one\n");
    assert_int_equal(say(writer, "one\n"), 0);
    hear(reader, "");
    bool closing = tram_stream_writer_is_closing(writer);
    trace(world, closing ? "server:closing" : "server:open");
    if (!closing)
        assert_int_equal(say(writer, "late"), 0);
    return close_stream(writer, 0);
}

static void test_K_4_the_end_closes_a_connection_with_tls(void **state) {
    (void)state;
    struct scene scene = {
        .service = {.handler = answer_late},
        .server = {.tls = servers},
        .connection = {.tls = clients, .server_hostname = "localhost"},
        .client = end_at_once,
    };
    assert_int_equal(run_function(play, &scene), 0);
    run_until_traced(world, "server:closing");
    assert_int_equal(world->warnings, 0); /* nobody wants to stay open who cannot */
    assert_int_equal(world->exceptions, 0);
}

static void test_K_4_tls_that_closes_by_halves_stays_half_open(void **state) {
    (void)state;
    tram_tls_source ca = source_of(authority.ca->chain_pem);
    tram_tls_options options = {.ca = ca, .half_close = true};
    tram_tls_config *config = config_make(&options);
    struct scene scene = {
        .service = {.handler = answer_late},
        .server = {.tls = half_closing_servers},
        .connection = {.tls = config, .server_hostname = "localhost"},
        .client = end_at_once,
    };
    assert_int_equal(run_function(play, &scene), 0);
    assert_trace(world, "server:open client:late");
    tram_tls_config_release(config);
}

/* ---- start_tls ---- */

static tram_start_tls_options client_tls(void) {
    return (tram_start_tls_options){.tls = clients, .server_hostname = "localhost"};
}

/* The peer begins with TLS once it has read the answer. */
static int serve_start_tls(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)arg;
    const tram_start_tls_options options = {.tls = servers};
    hear(reader, "STARTTLS\n");
    assert_int_equal(tram_stream_writer_write(writer, "go\n", 3), 0);
    int status = tram_stream_writer_start_tls(writer, &options);
    trace(world, "started:%s", status_name(status));
    return status ? status : echo(reader, writer, NULL);
}

static int ask_start_tls(tram_stream_reader *reader, tram_stream_writer *writer) {
    const tram_start_tls_options options = client_tls();
    assert_false(is_tls(writer));
    assert_int_equal(say(writer, "STARTTLS\n"), 0);
    hear(reader, "go\n");
    assert_int_equal(tram_stream_writer_start_tls(writer, &options), 0);
    return talk(reader, writer);
}

static void test_K_30_a_stream_goes_on_over_tls(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = serve_start_tls}, .client = ask_start_tls};
    assert_int_equal(run_function(play, &scene), 0);
    run_until_traced(world, "server:ok");
    assert_int_equal(world->exceptions, 0);
}

static int begin_at_once(tram_stream_reader *reader, tram_stream_writer *writer) {
    const tram_start_tls_options options = client_tls();
    assert_int_equal(tram_stream_writer_write(writer, "STARTTLS\n", 9), 0);
    int status = tram_stream_writer_start_tls(writer, &options);
    return status ? status : talk(reader, writer);
}

/* The reader has the beginning of the handshake before anybody knows that it is one. */
static int serve_late(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    const tram_start_tls_options options = {.tls = servers};
    tram_bytes ahead;
    assert_int_equal(tram_stream_reader_peek(reader, 30, &ahead), 0);
    assert_true(ahead.size >= 30);
    hear(reader, "STARTTLS\n");
    int status = tram_stream_writer_start_tls(writer, &options);
    return status ? status : echo(reader, writer, arg);
}

static void test_K_30_what_was_read_ahead_is_tls(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = serve_late}, .client = begin_at_once};
    assert_int_equal(run_function(play, &scene), 0);
    run_until_traced(world, "server:ok");
    /* And with a reader that has more than twice its limit, so that the transport does not read. */
    scene.service.limit = 10;
    assert_int_equal(run_function(play, &scene), 0);
    run_until_traced(world, "server:ok");
    assert_int_equal(world->exceptions, 0);
}

static int wait_for_line(void *arg) {
    hear(arg, "secret\n");
    return 0;
}

static int read_meanwhile(tram_stream_reader *reader, tram_stream_writer *writer) {
    const tram_start_tls_options options = client_tls();
    assert_int_equal(say(writer, "STARTTLS\n"), 0);
    hear(reader, "go\n");
    tram_task *task = spawn(wait_for_line, reader);
    assert_int_equal(tram_yield(), 0);
    assert_int_equal(tram_stream_writer_start_tls(writer, &options), 0);
    assert_int_equal(say(writer, "secret\n"), 0);
    assert_int_equal(tram_task_join(task), 0);
    return close_stream(writer, 0);
}

static void test_K_30_a_read_that_waits_goes_on_waiting(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = serve_start_tls}, .client = read_meanwhile};
    assert_int_equal(run_function(play, &scene), 0);
    run_until_traced(world, "server:ok");
}

/* ---- start_tls that fails ---- */

static int distrust(tram_stream_reader *reader, tram_stream_writer *writer) {
    tram_tls_config *strangers = client_config(stranger.ca);
    const tram_start_tls_options options = {.tls = strangers, .server_hostname = "localhost"};
    char byte;
    assert_int_equal(say(writer, "STARTTLS\n"), 0);
    hear(reader, "go\n");
    int status = tram_stream_writer_start_tls(writer, &options);
    tram_tls_config_release(strangers);
    tram_stream_writer_wait_closed(writer);
    assert_int_equal(tram_stream_reader_read(reader, &byte, 1), TRAM_ETLS_CERTIFICATE);
    assert_non_null(tram_stream_reader_exception(reader)->detail);
    return status;
}

static void test_K_30_a_handshake_that_fails_ends_the_stream(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = serve_start_tls}, .client = distrust};
    assert_int_equal(run_function(play, &scene), TRAM_ETLS_CERTIFICATE);
    run_until_traced(world, "started:TRAM_ETLS");
    run_to_rest(world);
    assert_int_equal(world->exceptions, 1); /* the handler's */
}

static int never_answer(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)writer;
    (void)arg;
    char byte;
    while (tram_stream_reader_read(reader, &byte, 1) > 0)
        ;
    trace(world, "server:end");
    return 0;
}

static int cancelled_start(tram_stream_reader *reader, tram_stream_writer *writer) {
    (void)reader;
    const tram_start_tls_options options = client_tls();
    tram_timeout *timeout;
    assert_int_equal(tram_timeout_begin(MS, &timeout), 0);
    int status = tram_stream_writer_start_tls(writer, &options);
    trace(world, "%s", status_name(status));
    status = tram_timeout_end(timeout, status);
    tram_stream_writer_wait_closed(writer);
    return status;
}

static void test_K_30_a_start_tls_that_is_cancelled_ends_the_stream(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = never_answer}, .client = cancelled_start};
    assert_int_equal(run_function(play, &scene), TRAM_ETIMEOUT);
    run_until_traced(world, "server:end");
    assert_non_null(strstr(world->trace, "TRAM_ECANCELLED"));
}

static int start_wrongly(tram_stream_reader *reader, tram_stream_writer *writer) {
    tram_start_tls_options options = client_tls();
    assert_int_equal(tram_stream_writer_start_tls(writer, NULL), TRAM_ETYPE);
    options.ahead = "x";
    options.ahead_size = 1;
    assert_int_equal(tram_stream_writer_start_tls(writer, &options), TRAM_EVALUE);
    assert_string_equal(tram_wrong_option(), "ahead");
    options = (tram_start_tls_options){0};
    assert_int_equal(tram_stream_writer_start_tls(writer, &options), TRAM_ETYPE);
    assert_int_equal(say(writer, "still plain\n"), 0);
    hear(reader, "still plain\n");
    tram_stream_writer_close(writer);
    options = client_tls();
    int status = tram_stream_writer_start_tls(writer, &options);
    assert_true(status == TRAM_ESTATE || status == -ECONNRESET);
    assert_int_equal(tram_stream_writer_wait_closed(writer), 0);
    assert_int_equal(tram_stream_writer_start_tls(writer, &options), -ECONNRESET);
    return 0;
}

static void test_K_30_what_makes_no_sense_changes_nothing(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = echo}, .client = start_wrongly};
    assert_int_equal(run_function(play, &scene), 0);
    tram_stream_reader *reader;
    tram_stream_writer *writer;
    tram_protocol *protocol;
    tram_start_tls_options options = client_tls();
    assert_int_equal(tram_stream_new(world->loop, 0, &protocol, &reader, &writer), 0);
    assert_int_equal(tram_stream_writer_start_tls(writer, &options), TRAM_ESTATE);
    protocol->ops->released(protocol);
    tram_stream_writer_release(writer);
}

static int start_after_end(tram_stream_reader *reader, tram_stream_writer *writer, void *arg) {
    (void)arg;
    const tram_start_tls_options options = {.tls = servers};
    hear(reader, "");
    assert_int_equal(tram_stream_writer_start_tls(writer, &options), TRAM_ESTATE);
    assert_int_equal(say(writer, "plain\n"), 0);
    return close_stream(writer, 0);
}

static int end_first(tram_stream_reader *reader, tram_stream_writer *writer) {
    assert_int_equal(tram_stream_writer_write_eof(writer), 0);
    hear(reader, "plain\n");
    return 0;
}

static void test_K_30_after_the_end_there_is_no_tls(void **state) {
    (void)state;
    struct scene scene = {.service = {.handler = start_after_end}, .client = end_first};
    assert_int_equal(run_function(play, &scene), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_setup, world_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_K_1_tls_options_of_connections_and_servers),
        TEST(test_K_1_a_certificate_that_is_not_trusted),
        TEST(test_K_18_a_read_that_fails_tells_why),
        TEST(test_K_4_the_end_closes_a_connection_with_tls),
        TEST(test_K_4_tls_that_closes_by_halves_stays_half_open),
        TEST(test_K_30_a_stream_goes_on_over_tls),
        TEST(test_K_30_what_was_read_ahead_is_tls),
        TEST(test_K_30_a_read_that_waits_goes_on_waiting),
        TEST(test_K_30_a_handshake_that_fails_ends_the_stream),
        TEST(test_K_30_a_start_tls_that_is_cancelled_ends_the_stream),
        TEST(test_K_30_what_makes_no_sense_changes_nothing),
        TEST(test_K_30_after_the_end_there_is_no_tls),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
