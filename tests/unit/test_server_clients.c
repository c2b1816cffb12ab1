/* Who is connected, in a text of any size: whole names only, and always how many more there are. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include "support/support.h"
#include "transports/server/server.h"

enum { CLIENTS = 6, NAMED = 4 };

static const size_t reserve = sizeof " and 18446744073709551615 more";

struct texts {
    char text[CLIENTS][100];
    unsigned count;
};

static void note(const tram_client *client, void *arg) {
    struct texts *texts = arg;
    assert_true(texts->count < CLIENTS);
    tram_client_text(client, texts->text[texts->count++], sizeof texts->text[0]);
}

/* As many as fit with what may follow them. */
static void expected_text(const struct texts *texts, size_t size, char *text) {
    size_t used = 0;
    unsigned named = 0;
    for (; named < texts->count && named < NAMED; named++) {
        char part[110];
        size_t length = (size_t)snprintf(part, sizeof part, "%s%s", named ? ", " : "", texts->text[named]);
        if (used + length + reserve > size)
            break;
        memcpy(text + used, part, length);
        used += length;
    }
    text[used] = '\0';
    if (named && named < texts->count)
        sprintf(text + used, " and %u more", texts->count - named);
}

static void test_as_many_are_named_as_fit(void **state) {
    struct world *world = *state;
    tram_future *future;
    tram_socket_address address;
    struct sockaddr_in inet;
    int fds[CLIENTS];
    assert_int_equal(tram_loop_create_server(world->loop, recorder_factory, world, "127.0.0.1", "0", NULL, &future), 0);
    assert_int_equal(tram_loop_run_until_complete(world->loop, future), 0);
    tram_server *server = tram_future_server(future);
    assert_int_equal(tram_server_sockname(server, 0, &address), 0);
    memcpy(&inet, &address.address, sizeof inet);
    for (unsigned count = 0; count <= CLIENTS; count++) {
        struct texts texts = {.count = 0};
        assert_int_equal(tram_server_each_client(server, note, &texts), 0);
        assert_int_equal(texts.count, count);
        for (size_t size = 1; size <= 512; size++) {
            char text[512], expected[600];
            tram__server_describe(server, text, size);
            expected_text(&texts, size, expected);
            assert_string_equal(text, expected);
        }
        if (count == CLIENTS)
            break;
        fds[count] = tcp_connect(ntohs(inet.sin_port));
        run_until_traced(world, "made");
        world->trace[0] = '\0';
    }
    assert_int_equal(tram_server_abort_clients(server), 0);
    tram_server_close(server);
    run_to_rest(world);
    tram_server_release(server);
    tram_future_release(future);
    for (unsigned i = 0; i < CLIENTS; i++)
        close(fds[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_as_many_are_named_as_fit, world_setup, world_teardown),
    };
    return cmocka_run_group_tests_name("server_clients", tests, NULL, NULL);
}
